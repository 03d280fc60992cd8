"""Console script `clicv2-train`: pretrain, fit, evaluate, export."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from clicv2.errors import ContractError
from training.evaluate import agreement_table
from training.evaluate import evaluate as run_evaluation
from training.export import export_run
from training.fit import fit_run
from training.pretrain import pretrain as run_pretraining
from training.progress import CONSOLE
from training.recipe import Recipe

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)

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
    seed: Annotated[int, typer.Option(help="Of the folds.")] = 0,
) -> None:
    """Fit a readout to human ratings on the run's frozen features, and calibrate it to [0, 1]."""
    chosen = tuple(int(name) if name.isdigit() else name for name in layers.split(",") if name)
    fitted = fit_run(run, images, ratings, chosen, scale, seed)
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
    manifest = export_run(run, target, reference, images, ratings, reference_count)
    table = Table(title=f"{target}")
    for name, value in {"sha256": manifest.sha256, **manifest.measured}.items():
        table.add_row(name, str(value))
    for name, figure in manifest.figures.items():
        table.add_row(name, f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]")
    Console().print(table)


def main() -> None:
    """Run the command; what the user can mend is a message and exit code 2, not a traceback."""
    try:
        app()
    except (OSError, ValueError, ContractError) as error:
        CONSOLE.print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
