"""Compare methods, and the parts of a method: each variant is trained from scratch with the same budget.

A YAML file names a base recipe and what each variant changes in it. Every variant is pretrained on
the same images for the same number of steps, gets the same readout on its own features alone (no
code lengths, so that what is compared is what was learned), and is asked the same questions.
Whatever is finished is kept, so a comparison can be made in parts and survives a kill.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml
from matplotlib.figure import Figure as Picture
from pydantic import BaseModel, ConfigDict, Field
from rich.table import Table

from clicv2.contract import Figure
from training.curves import METRICS
from training.data.ratings import file_sha256
from training.evaluate import Evaluation, LeakTest, Questions, evaluate
from training.fit import fit_run
from training.metrics import Scale
from training.models.readout import PYRAMID
from training.pretrain import pretrain
from training.progress import CONSOLE
from training.recipe import Recipe

RESULT = "result.json"
TABLE = "ablation.md"
PICTURE = "ablation.png"

# Figure -> heading; in the order of the table.
COLUMNS = {
    "score_pcc": "readout PCC",
    "score_srcc": "readout SRCC",
    "entropy_pcc": "label-free PCC",
    "entropy_srcc": "label-free SRCC",
    "heatmap_auc": "heatmap AUC",
    "content_leak": "content leak",
}


class Variant(BaseModel):
    """One row: what it is called, and what it changes in the base recipe (nested, as in the recipe's YAML)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    changes: dict[str, object] = Field(default_factory=dict)


class Ablation(BaseModel):
    """A comparison.

    Attributes:
        base: recipe, relative to the file that names it.
        epochs: of every variant.
        changes: in the base, for every variant, before its own.
        variants: by name, which is also the name of the folder of its run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: Path
    epochs: int = Field(gt=0)
    changes: dict[str, object] = Field(default_factory=dict)
    variants: dict[str, Variant]

    @classmethod
    def load(cls, path: Path) -> "Ablation":
        """Read a comparison. Raises pydantic.ValidationError (a ValueError) with the field that is wrong."""
        loaded = cls.model_validate(yaml.safe_load(path.read_text()))
        return loaded.model_copy(update={"base": path.parent / loaded.base})

    def recipe(self, name: str, images: Sequence[Path] = ()) -> Recipe:
        """The recipe of a variant. Raises KeyError, or ValueError when it changes what no recipe has."""
        content = yaml.safe_load(self.base.read_text())
        content = merged(merged(content, self.changes), self.variants[name].changes)
        content = merged(content, {"name": name, "optim": {"epochs": self.epochs}})
        if images:
            content["images"] = list(images)
        return Recipe.model_validate(content)


@dataclass(frozen=True, slots=True)
class Row:
    """What a variant reached.

    Attributes:
        title: of the variant.
        parameters: of what would be exported.
        steps, seconds: of its pretraining.
        figures: see `COLUMNS`; the content leak is missing when it was not asked for, and the label-free figures
            of a method whose head for them was not trained.
    """

    title: str
    parameters: int
    steps: int
    seconds: float
    figures: Mapping[str, Figure]


def ablate(
    ablation: Ablation,
    out: Path,
    images: Sequence[Path],
    table: Path,
    scale: Scale,
    *,
    only: Sequence[str] = (),
    pretraining: Sequence[Path] = (),
    leak: LeakTest | None = None,
) -> dict[str, Row]:
    """Train and measure what is not there yet, and write table and picture of all that is; returns the rows by name.

    Args:
        out: a folder with one run a variant.
        images, table: ratings, for readout and figures.
        only: names of variants; () for all.
        pretraining: images instead of the base recipe's.

    Raises ValueError for a name that is no variant, or when `out` holds another comparison.
    """
    if unknown := set(only) - set(ablation.variants):
        raise ValueError(f"no variant {', '.join(sorted(unknown))}: there are {', '.join(ablation.variants)}")
    recipes = {name: ablation.recipe(name, pretraining) for name in ablation.variants}  # all valid before any is run
    rows = {}
    for name, recipe in recipes.items():
        run = out / name
        asked = {"ratings_sha256": file_sha256(table), "leak": leak is not None}
        row = load_row(run / RESULT, recipe, asked)
        if row is None and (not only or name in only):
            CONSOLE.rule(ablation.variants[name].title)
            row = measure(ablation.variants[name].title, recipe, run, images, table, scale, leak)
            content = {"recipe": recipe.model_dump(mode="json"), **asked, "row": asdict(row)}
            (run / RESULT).write_text(json.dumps(content, indent=2) + "\n")
        if row is not None:
            rows[name] = row
            (out / TABLE).write_text(markdown(rows.values()))
            draw(rows.values(), out / PICTURE)
    return rows


def measure(
    title: str,
    recipe: Recipe,
    run: Path,
    images: Sequence[Path],
    table: Path,
    scale: Scale,
    leak: LeakTest | None,
) -> Row:
    """Pretrain, fit and evaluate one variant; each part continues or is skipped if it was done before."""
    pretrain(recipe, run)
    last = recipe.build_method().encoder.depth - 1
    fitted = fit_run(run, images, table, (PYRAMID, last), scale)
    result = evaluate(run, images, table, questions=Questions(heatmaps=True, leak=leak))
    steps = [json.loads(line) for line in (run / METRICS).read_text().splitlines()]
    return Row(
        title=title,
        parameters=int(result.about["parameters"]),
        steps=len(steps),
        seconds=sum(step["step_s"] for step in steps),
        figures={
            "score_pcc": fitted.quality.mean["pcc"],
            "score_srcc": fitted.quality.mean["srcc"],
            **_evaluated(result, label_free=recipe.method != "clicv2" or recipe.clicv2.masked_entropy),
        },
    )


def _evaluated(result: Evaluation, *, label_free: bool) -> dict[str, Figure]:
    figures = {"heatmap_auc": result.localisation["heatmap"].auc}
    if label_free:
        entropy = result.outputs["entropy"].mean
        figures |= {"entropy_pcc": entropy["pcc"], "entropy_srcc": entropy["srcc"]}
    return figures | ({"content_leak": result.leak["embedding"].accuracy} if result.leak else {})


def merged(base: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    """Nested mappings joined; `changes` wins."""
    result = dict(base)
    for key, value in changes.items():
        before = result.get(key)
        result[key] = merged(before, value) if isinstance(before, Mapping) and isinstance(value, Mapping) else value
    return result


def load_row(file: Path, recipe: Recipe, asked: Mapping[str, object]) -> Row | None:
    """A row that was measured before; None if there is none, or one that was asked less or of other ratings."""
    if not file.exists():
        return None
    content = json.loads(file.read_text())
    if content["recipe"] != recipe.model_dump(mode="json"):
        raise ValueError(f"{file.parent} belongs to another comparison: choose another folder")
    if any(content[name] != value for name, value in asked.items()):
        return None
    row = content["row"]
    return Row(**{**row, "figures": {name: Figure(**figure) for name, figure in row["figures"].items()}})


def markdown(rows: Iterable[Row]) -> str:
    """The table as it goes into a document, every figure with its 95 % interval."""
    heads = ["variant", "parameters", "steps", "minutes", *COLUMNS.values()]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    lines += [f"| {' | '.join(_cells(row))} |" for row in rows]
    return "\n".join(lines) + "\n"


def rich_table(rows: Iterable[Row]) -> Table:
    table = Table(title="ablation")
    for head in ("variant", "parameters", "steps", "minutes", *COLUMNS.values()):
        table.add_column(head, justify="left" if head == "variant" else "right")
    for row in rows:
        table.add_row(*_cells(row))
    return table


def _cells(row: Row) -> list[str]:
    figures = [row.figures.get(name) for name in COLUMNS]
    shown = ["" if f is None else f"{f.value:.3f} [{f.low:.3f}, {f.high:.3f}]" for f in figures]
    return [row.title, f"{row.parameters / 1e6:.2f} M", str(row.steps), f"{row.seconds / 60:.0f}", *shown]


def draw(rows: Iterable[Row], file: Path) -> None:
    """A panel a figure, a line a variant: the value and its interval, for the eye to compare."""
    shown = list(rows)
    picture = Picture(figsize=(13, 1.6 + 0.35 * len(shown)), layout="constrained")
    panels = picture.subplots(1, len(COLUMNS), sharey=True)
    heights = range(len(shown), 0, -1)
    for panel, (name, heading) in zip(panels, COLUMNS.items(), strict=True):
        for height, row in zip(heights, shown, strict=True):
            if (figure := row.figures.get(name)) is not None:
                panel.plot([figure.low, figure.high], [height, height], color="tab:grey", linewidth=2)
                panel.plot([figure.value], [height], "o", color="tab:blue")
        panel.set_title(heading, fontsize=10)
        panel.grid(axis="x", alpha=0.3)
        panel.set_yticks(list(heights), [row.title for row in shown])
        panel.set_ylim(0.5, len(shown) + 0.5)
    picture.savefig(file, dpi=110)
