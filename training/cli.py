"""Console script `clicv2-train`: pretrain, fit, finetune, evaluate, ablate, export, restore."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from clicv2.errors import ContractError
from training import distributed
from training.ablate import Ablation, rich_table
from training.ablate import ablate as run_ablation
from training.data.ratings import usual_scale
from training.evaluate import LeakTest, Questions
from training.evaluate import evaluate as run_evaluation
from training.export import export_run
from training.finetune import finetune as run_finetuning
from training.fit import FitKind, fit_run
from training.leak import IMAGES as LEAK_IMAGES
from training.models.readout import Kind, Layers
from training.pretrain import pretrain as run_pretraining
from training.progress import CONSOLE
from training.recipe import OptimConfig, Recipe
from training.report import write_report
from training.restore import restore as restore_run
from training.scorers import published_version
from training.tables import IN_SAMPLE, agreement_table, further_table, summary_table, title
from training.tuning import TuningSettings

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)

Images = Annotated[list[Path], typer.Option(help="A folder or tar shard of images; repeat for several.")]
Ratings = Annotated[
    Path,
    typer.Option(help="CSV of path,score[,group], or a .txt in IC9600's layout; paths as inside --images."),
]
LayerNames = Annotated[
    str,
    typer.Option(
        "--layers",
        help="Layers that the readout sees, by comma: code_length, coding_rate, pyramid, or a block's number from 0.",
    ),
]
KindName = Annotated[
    Kind,
    typer.Option(
        "--kind", help="A readout of the features alone (a linear probe), or of their squares or variety too."
    ),
]
Scale = Annotated[
    tuple[float, float] | None,
    typer.Option("--scale", help="Lowest and highest possible rating; by default 0 1 for a .txt, 0 100 for a CSV."),
]


FitKindName = Annotated[
    FitKind,
    typer.Option("--kind", help="As for finetune, or kernel: variety, with similarity to the rated images beside it."),
]


@app.command()
def pretrain(
    recipe: Annotated[Path, typer.Argument(help="A YAML recipe, e.g. training/configs/clicv2_small.yaml.")],
    out: Annotated[Path, typer.Option(help="Folder of the run; an unfinished run there is continued.")],
    images: Annotated[list[Path] | None, typer.Option(help="Instead of the recipe's images.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Instead of the recipe's epochs.")] = None,
    start: Annotated[
        Path | None,  # `--start` alone torchrun would take for its own `--start-method`
        typer.Option("--start-from", help="A run whose weights to begin with, instead of random ones."),
    ] = None,
) -> None:
    """Pretrain on unlabelled images, e.g. clicv2-train pretrain training/configs/clicv2_small.yaml --out runs/small."""
    chosen = Recipe.load(recipe)
    if images:
        chosen = chosen.model_copy(update={"images": tuple(images)})
    if epochs:
        chosen = chosen.model_copy(update={"optim": chosen.optim.model_copy(update={"epochs": epochs})})
    if start:
        chosen = chosen.model_copy(update={"start": start})
    checkpoint = run_pretraining(chosen, out)
    if distributed.is_first():
        CONSOLE.print(f"checkpoint: {checkpoint}", soft_wrap=True)


@app.command()
def fit(
    run: Annotated[Path, typer.Argument(help="Folder of a pretraining run.")],
    images: Images,
    ratings: Ratings,
    layers: LayerNames = "",
    kind: FitKindName = "kernel",
    scale: Scale = None,
    seed: Annotated[int, typer.Option(help="Of the folds.")] = 0,
) -> None:
    """Fit a readout to human ratings on the run's frozen features, and calibrate it to [0, 1]."""
    fitted = fit_run(run, images, ratings, parse_layers(layers), scale or usual_scale(ratings), seed, kind)
    Console().print(agreement_table(fitted.quality, "calibrated score, nested cross-validation"))


@app.command()
def finetune(
    run: Annotated[Path, typer.Argument(help="Folder of a pretraining run.")],
    images: Images,
    ratings: Ratings,
    out: Annotated[Path, typer.Option(help="Folder of the new run; an unfinished one there is continued.")],
    epochs: Annotated[int, typer.Option(help="At most.", min=1)] = 12,
    lr: Annotated[float, typer.Option(help="Peak learning rate of the readout.")] = 1e-3,
    encoder_share: Annotated[float, typer.Option(help="Of that, for the encoder's last block.")] = 0.1,
    pretraining_weight: Annotated[
        float, typer.Option(help="Of the pretraining loss, which goes on beside; for CLIC and MoCo, about 0.03.")
    ] = 1.0,
    batch_size: Annotated[int, typer.Option(min=2)] = 32,
    folds: Annotated[int, typer.Option(help="Cross-validate, with so many further trainings; 0 for no figure.")] = 0,
    layers: LayerNames = "",
    kind: KindName = "variety",
    scale: Scale = None,
    seed: Annotated[int, typer.Option(help="Of the folds, the order and the flips.")] = 0,
) -> None:
    """Train all weights on human ratings, starting from a readout on the frozen features."""
    settings = TuningSettings(
        optim=OptimConfig.model_validate({"epochs": epochs, "batch_size": batch_size, "lr": lr, "warmup": 0.1}),
        encoder_share=encoder_share,
        pretraining_weight=pretraining_weight,
        layers=parse_layers(layers),
        kind=kind,
        scale=scale or usual_scale(ratings),
        seed=seed,
    )
    finetuned = run_finetuning(run, images, ratings, out, settings, folds)
    CONSOLE.print(f"{out}: human ratings have touched all its weights; its entropy output is no longer label-free")
    if finetuned.epoch == 0:
        CONSOLE.print("[yellow]no epoch did better on the held-out images than the frozen features[/yellow]")
    if finetuned.quality is None:
        CONSOLE.print("no figure is claimed: ask for --folds 5")
    else:
        Console().print(agreement_table(finetuned.quality, "calibrated score, cross-validation of the fine-tuning"))


def parse_layers(names: str) -> Layers:
    return tuple(int(name) if name.isdigit() else name for name in names.split(",") if name)


def leak_test(manifest: Path | None, images: list[Path] | None, count: int = LEAK_IMAGES) -> LeakTest | None:
    if (manifest is None) != (images is None):
        raise ValueError("--leak-manifest and --leak-images go together")
    return LeakTest(manifest, tuple(images), count) if manifest and images else None


@app.command()
def evaluate(
    model: Annotated[
        Path, typer.Option(help="A run's folder, a .pt checkpoint, or model_repository/NAME, or NAME/VERSION.")
    ],
    images: Images,
    ratings: Ratings,
    scale: Scale = None,
    baselines: Annotated[bool, typer.Option("--baselines", help="Classical measures on the same pictures.")] = False,
    heatmaps: Annotated[
        bool, typer.Option("--heatmaps", help="How well heatmaps find the busy regions of composed pictures.")
    ] = False,
    leak_manifest: Annotated[
        Path | None,
        typer.Option(help="CSV of [shard,]name,label: how well a probe names the labels from the embedding."),
    ] = None,
    leak_images: Annotated[list[Path] | None, typer.Option(help="Folder or tar shard with its images.")] = None,
    leak_count: Annotated[int, typer.Option(help="At most so many of them, drawn at random.", min=1)] = LEAK_IMAGES,
    report: Annotated[Path | None, typer.Option(help="HTML page to write, in one file; implies --heatmaps.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    seed: Annotated[int, typer.Option(help="Of the bootstrap, the folds and the composed pictures.")] = 0,
) -> None:
    """Compare a model's score and its label-free entropy with human ratings."""
    if report and not report.absolute().parent.is_dir():  # said before the minutes that scoring takes
        raise FileNotFoundError(f"no folder {report.parent} to write {report.name} into")
    leak = leak_test(leak_manifest, leak_images, leak_count)
    questions = Questions(scale or usual_scale(ratings), baselines, heatmaps, leak, evidence=report is not None)
    result = run_evaluation(model, images, ratings, questions=questions, seed=seed)
    if report:
        write_report(result, model, report)
        CONSOLE.print(f"report: {report}")
    if result.in_sample:
        CONSOLE.print(f"[yellow]{IN_SAMPLE}[/yellow]")
    if as_json:
        print(json.dumps(result.to_dict(), indent=2))
        return
    for name, output in result.outputs.items():
        Console().print(agreement_table(output, f"{title(name, result)}: {result.model} on {result.ratings}"))
    if result.baselines:
        Console().print(summary_table(result))
    if further := further_table(result):
        Console().print(further)


@app.command()
def ablate(
    comparison: Annotated[Path, typer.Argument(help="A YAML file, e.g. training/configs/ablations/papers.yaml.")],
    out: Annotated[Path, typer.Option(help="Folder with a run of each variant; what is there is kept.")],
    images: Images,
    ratings: Ratings,
    scale: Scale = None,
    only: Annotated[list[str] | None, typer.Option(help="A variant by name; repeat for several. Default: all.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Instead of the file's epochs.")] = None,
    pretraining: Annotated[list[Path] | None, typer.Option(help="Images instead of the base recipe's.")] = None,
    leak_manifest: Annotated[Path | None, typer.Option(help="See evaluate.")] = None,
    leak_images: Annotated[list[Path] | None, typer.Option(help="See evaluate.")] = None,
) -> None:
    """Train the variants of a comparison with the same budget and print one table of them."""
    chosen = Ablation.load(comparison)
    if epochs:
        chosen = chosen.model_copy(update={"epochs": epochs})
    rows = run_ablation(
        chosen,
        out,
        images,
        ratings,
        scale or usual_scale(ratings),
        only=only or (),
        pretraining=pretraining or (),
        leak=leak_test(leak_manifest, leak_images),
    )
    Console().print(rich_table(rows.values()))


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


@app.command()
def restore(
    model: Annotated[Path, typer.Argument(help="A model of a repository, or one of its versions.")],
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
) -> None:
    """Make a run of a published model, e.g. model_repository/clicv2, to fit its encoder to other ratings."""
    CONSOLE.print(f"checkpoint: {restore_run(published_version(model), out)}", soft_wrap=True)


def main() -> None:
    """Run the command; what the user can mend is a message and exit code 2, not a traceback."""
    try:
        app()
    except (OSError, ValueError, ContractError) as error:
        CONSOLE.print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
