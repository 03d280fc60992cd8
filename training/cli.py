"""Console script `clicv2-train`: pretrain, fit, evaluate, export."""

import json
import random
from pathlib import Path
from typing import Annotated

import numpy as np
import pydantic
import torch
import typer
from rich.console import Console
from rich.table import Table

from clicv2.contract import Figure
from clicv2.errors import ContractError, ImageError
from training.checkpoint import Checkpoint
from training.data.images import ImageDataset, find_images
from training.data.ratings import load_ratings
from training.evaluate import agreement_table, file_sha256
from training.evaluate import evaluate as run_evaluation
from training.export import publish
from training.fit import FILE as READOUT
from training.fit import fit_readout, load_readout
from training.models.readout import CODE_LENGTH, ComplexityModel
from training.pretrain import pretrain as run_pretraining
from training.progress import CONSOLE
from training.recipe import Recipe
from training.scorers import TorchScorer, score_all

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)
FIT_REPORT = "fit.json"

Images = Annotated[list[Path], typer.Option(help="A folder or tar shard of images; repeat for several.")]
Ratings = Annotated[Path, typer.Option(help="CSV of path,score[,group]; paths as inside --images.")]


@app.command()
def pretrain(
    recipe: Annotated[Path, typer.Argument(help="A YAML recipe, e.g. training/configs/clicv2_small.yaml.")],
    out: Annotated[Path, typer.Option(help="Folder of the run; an unfinished run there is continued.")],
    images: Annotated[list[Path] | None, typer.Option(help="Instead of the recipe's images.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Instead of the recipe's epochs.")] = None,
) -> None:
    """Pretrain on unlabelled images, e.g. clicv2-train pretrain training/configs/clicv2_small.yaml --out runs/small."""
    chosen = Recipe.load(recipe)
    if images:
        chosen = chosen.model_copy(update={"images": tuple(images)})
    if epochs:
        chosen = chosen.model_copy(update={"optim": chosen.optim.model_copy(update={"epochs": epochs})})
    CONSOLE.print(f"checkpoint: {run_pretraining(chosen, out)}")


@app.command()
def fit(
    run: Annotated[Path, typer.Argument(help="Folder of a pretraining run.")],
    images: Images,
    ratings: Ratings,
    layers: Annotated[
        str,
        typer.Option(help="Layers that the readout sees, by comma: code_length, pyramid, or a block's number from 0."),
    ] = "",
    scale: Annotated[tuple[float, float], typer.Option(help="Lowest and highest possible rating.")] = (0.0, 100.0),
    seed: int = 0,
) -> None:
    """Fit a readout to human ratings on the run's frozen features, and calibrate it to [0, 1]."""
    checkpoint = Checkpoint.load(run)
    chosen = tuple(int(name) if name.isdigit() else name for name in layers.split(",") if name)
    rated = load_ratings(ratings, images)
    fitted = fit_readout(
        checkpoint.method(),
        rated,
        checkpoint.recipe.input_spec,
        chosen or (CODE_LENGTH, checkpoint.recipe.encoder.depth - 1),
        scale,
        seed,
    )
    fitted.save(run / READOUT)
    report = {
        "ratings": ratings.name,
        "ratings_sha256": file_sha256(ratings),
        "images": len(rated),
        "penalty": fitted.penalty,
        "cross_validated": {m: [f.value, f.low, f.high] for m, f in fitted.quality.mean.items()},
    }
    (run / FIT_REPORT).write_text(json.dumps(report, indent=2) + "\n")
    Console().print(agreement_table(fitted.quality, "calibrated score, nested cross-validation"))


@app.command()
def evaluate(
    model: Annotated[Path, typer.Option(help="A run's folder, a .pt checkpoint, or model_repository/NAME[/VERSION].")],
    images: Images,
    ratings: Ratings,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
) -> None:
    """Correlate a model's score and its label-free entropy with human ratings."""
    result = run_evaluation(model, images, ratings, seed=seed)
    if result.in_sample:
        CONSOLE.print("[yellow]the readout was fitted on these very ratings: the score's figures flatter it[/yellow]")
    if as_json:
        print(json.dumps(result.to_dict(), indent=2))
        return
    titles = {"score": "calibrated score", "entropy": "label-free entropy"}
    for name, output in result.outputs.items():
        Console().print(agreement_table(output, f"{titles[name]}: {result.model} on {result.ratings}"))


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a run that was pretrained and fitted.")],
    target: Annotated[Path, typer.Argument(help="model_repository/NAME/VERSION, not there yet.")],
    reference: Annotated[list[Path], typer.Option(help="Images whose scores give the percentiles.")],
    images: Images,
    ratings: Ratings,
    reference_count: Annotated[int, typer.Option(help="How many of them, drawn at random.")] = 2000,
) -> None:
    """Export to ONNX with its manifest; the ratings give the label-free figures (the score's are from the fit)."""
    if target.exists():  # said before the minutes that scoring takes
        raise FileExistsError(f"{target} is published already: export the next version")
    checkpoint = Checkpoint.load(run)
    method = checkpoint.method()
    model = ComplexityModel(method.encoder, method.entropy_head, *load_readout(run / READOUT)).eval()
    fit_report = json.loads((run / FIT_REPORT).read_text())
    found = find_images(reference)
    chosen = random.Random(0).sample(found, min(reference_count, len(found)))
    dataset = ImageDataset(chosen, checkpoint.recipe.input_spec)
    scores = score_all(TorchScorer(run), dataset).score
    if scores is None:
        raise ValueError(f"{run} has no readout: run clicv2-train fit first")
    label_free = run_evaluation(run, images, ratings).outputs["entropy"].mean
    manifest = publish(
        model,
        checkpoint.recipe,
        target,
        pixels=np.stack([dataset[i].numpy() for i in range(min(8, len(dataset)))]),
        reference=scores,
        figures={
            **{f"score_{m}_cross_validated": Figure(*f) for m, f in fit_report["cross_validated"].items()},
            **{f"entropy_{m}": f for m, f in label_free.items()},
        },
        data={
            "pretraining": [p.name for p in checkpoint.recipe.images],
            "ratings": fit_report["ratings"],
            "ratings_sha256": fit_report["ratings_sha256"],
            "ratings_images": fit_report["images"],
            "reference": [p.name for p in reference],
            "reference_images": len(chosen),
        },
    )
    table = Table(title=f"{target}")
    for name, value in {"sha256": manifest.sha256, **manifest.measured}.items():
        table.add_row(name, str(value))
    for name, figure in manifest.figures.items():
        table.add_row(name, f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]")
    Console().print(table)


def main() -> None:
    """Run the command; what the user can mend is a message and exit code 2, not a traceback."""
    torch.set_float32_matmul_precision("highest")
    try:
        app()
    except (OSError, ValueError, ContractError, ImageError, pydantic.ValidationError) as error:
        CONSOLE.print(f"[red]error:[/red] {error}", highlight=False, soft_wrap=True)
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
