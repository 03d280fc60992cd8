"""The report: one page that needs nothing else, with every figure, and nobody's markup but its own."""

import base64
import re
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import tiny_model
from PIL import Image

from training import cli, report
from training.charts import Chart
from training.curves import METRICS
from training.data.ratings import standardise_within
from training.evaluate import Evaluation, Questions, evaluate
from training.fit import fit_run
from training.localisation import area_under_curve
from training.pretrain import pretrain
from training.recipe import Recipe
from training.report import COMPOSITIONS, ERRORS, compositions, curve_charts, facts, largest_errors, write_report
from training.tables import IN_SAMPLE

# Text that would be markup if it were not escaped.
HOSTILE = '<img src=x onerror=alert(1)>&"'


class Page(HTMLParser):
    """Reads a page as a browser would, and fails where its tags do not match."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.write(tmp_path_factory.mktemp("repository")) / "clicv2"


@pytest.fixture(scope="module")
def result(repository: Path, images: Path, ratings: Path) -> Evaluation:
    return evaluate(repository, [images], ratings, questions=Questions((0.0, 100.0), baselines=True, evidence=True))


@pytest.fixture(scope="module")
def page(result: Evaluation, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("report") / "report.html"
    write_report(result, repository, out)
    return out.read_text()


def test_the_page_needs_nothing_else(page: str) -> None:
    parsed = Page(page)
    assert not {"script", "link", "iframe", "object"} & {name for name, _ in parsed.tags}
    for _, attributes in parsed.tags:
        for name in ("src", "href", "srcset", "xlink:href"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert "@import" not in page
    assert "url(" not in page
    assert "http" not in page


def test_the_page_has_every_figure(page: str, result: Evaluation) -> None:
    text = Page(page).text()
    rows = [*result.outputs.values(), *result.baselines.values()]
    figures = [figure for row in rows for figure in row.mean.values()]
    figures += [figure for by_group in result.outputs["score"].groups.values() for figure in by_group.values()]
    figures += [found.auc for found in result.localisation.values()]
    for figure in figures:
        assert f"{figure.value:.3f} {figure.low:.3f} to {figure.high:.3f}" in text
    for word in ("calibrated score", "label-free entropy", "edge density", "RMSE", "odd", "even"):
        assert word in text


def test_every_picture_is_one_and_says_what_it_is(page: str) -> None:
    shown = Page(page).all("img")
    assert len(shown) >= 2 * 12 + 2 * COMPOSITIONS
    for image in shown:
        assert image["alt"]
        encoded = str(image["src"]).split(",", 1)[1]
        with Image.open(BytesIO(base64.b64decode(encoded, validate=True))) as picture:
            picture.load()
    for drawing in Page(page).all("svg"):
        assert drawing.get("aria-label") or drawing.get("aria-hidden") == "true"


def test_a_dot_for_every_picture(page: str) -> None:
    parsed = Page(page)
    dots = [circle for circle in parsed.all("circle") if circle.get("class") == "dot"]
    assert len(dots) == 12
    for number in range(12):
        assert f"{number:02}.png: rated" in page


def test_light_dark_and_phones_are_thought_of(page: str) -> None:
    assert "@media (prefers-color-scheme: dark)" in page
    assert 'name="viewport" content="width=device-width, initial-scale=1"' in page
    styles = re.search(r"<style>(.*)</style>", page, re.DOTALL)
    assert styles
    colours = re.sub(r":root \{[^}]*\}", "", styles[1])
    assert not re.search(r"#[0-9a-f]{3,6}\b", colours)  # every colour has a light and a dark form


def test_strangers_text_is_no_markup(result: Evaluation, repository: Path, tmp_path: Path) -> None:
    evidence = result.evidence
    assert evidence is not None
    groups = np.array([HOSTILE if g == "odd" else "even" for g in evidence.ratings.groups])
    sources = tuple(replace(source, name=HOSTILE + source.name) for source in evidence.ratings.sources)
    renamed = {
        name: replace(
            output,
            groups={m: {HOSTILE: by["odd"], "even": by["even"]} for m, by in output.groups.items()},
        )
        for name, output in result.outputs.items()
    }
    hostile = replace(
        result,
        model=HOSTILE,
        ratings=HOSTILE,
        about={**result.about, "name": HOSTILE, "method": HOSTILE},
        outputs=renamed,
        evidence=replace(evidence, ratings=replace(evidence.ratings, groups=groups, sources=sources)),
    )
    write_report(hostile, repository, tmp_path / "hostile.html")
    parsed = Page((tmp_path / "hostile.html").read_text())
    assert all("onerror" not in attributes for _, attributes in parsed.tags)
    assert HOSTILE in parsed.text()  # shown as it is


def test_the_largest_errors_come_first(result: Evaluation) -> None:
    evidence = result.evidence
    assert evidence is not None
    assert evidence.scores.score is not None
    ratings = evidence.ratings
    error = standardise_within(evidence.scores.score, ratings.groups) - standardise_within(
        ratings.scores, ratings.groups
    )
    order = sorted(range(12), key=lambda n: -abs(error[n]))
    shown = largest_errors(evidence)
    assert [pair.name for pair in shown] == [ratings.sources[n].name for n in order][:ERRORS]
    for number, pair in zip(order, shown, strict=False):
        assert pair.caption.startswith(f"{abs(error[number]):.1f} deviations too ")
        assert ("too complex" in pair.caption) == (error[number] > 0)


def test_compositions_go_from_the_worst_to_the_best(result: Evaluation) -> None:
    evidence = result.evidence
    assert evidence is not None
    noise = np.random.default_rng(0).normal(0, 0.2, evidence.composed_heatmaps.shape)
    doubtful = replace(evidence, composed_heatmaps=(evidence.composed_heatmaps + noise).astype(np.float32))
    areas = [area_under_curve(m, c.busy) for m, c in zip(doubtful.composed_heatmaps, doubtful.composed, strict=True)]
    shown = [float(pair.caption.removeprefix("AUC ")) for pair in compositions(doubtful)]
    assert len(shown) == COMPOSITIONS
    assert shown == sorted(shown)
    assert (shown[0], shown[-1]) == pytest.approx((min(areas), max(areas)), abs=1e-3)


def test_pictures_keep_the_proportions_of_the_original(result: Evaluation) -> None:
    assert result.evidence is not None
    pair = largest_errors(result.evidence)[0]
    for uri in (pair.picture, pair.heatmap):
        with Image.open(BytesIO(base64.b64decode(uri.split(",", 1)[1]))) as picture:
            assert picture.size == (288, round(288 * 64 / 80))


def test_facts_are_told_to_people(result: Evaluation) -> None:
    about = {"bytes": 3 * 2**20, "parameters": 3120804, "seconds_per_image_one_core": 0.0121, "sha256": "f" * 64}
    told = dict(facts(replace(result, about=about)))
    assert told == {
        "file": "3.0 MiB",
        "parameters": "3,120,804",
        "one picture, one core, as measured at export": "12.1 ms",
        "sha256": "ffffffffffff…",
    }


def test_a_warning_where_the_figures_flatter(result: Evaluation, page: str, repository: Path, tmp_path: Path) -> None:
    assert IN_SAMPLE.split("'")[0] not in page
    write_report(replace(result, in_sample=True), repository, tmp_path / "report.html")
    assert IN_SAMPLE in Page((tmp_path / "report.html").read_text()).text()


def test_without_evidence_there_is_no_report(result: Evaluation, repository: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="evidence"):
        write_report(replace(result, evidence=None), repository, tmp_path / "report.html")


def test_a_repository_has_no_curves_and_a_run_has_all_of_its(tmp_path: Path, repository: Path) -> None:
    assert curve_charts(repository) == []
    (tmp_path / METRICS).write_text("".join(f'{{"step": {n}, "loss": {1 / n}, "lr": 0.1}}\n' for n in range(1, 9)))
    loss, rate = curve_charts(tmp_path)
    assert isinstance(loss, Chart)
    assert (loss.title, rate.title) == ("loss", "lr")
    assert loss.summary == "loss: 1 at first, 0.125 at last"


@pytest.mark.parametrize("readout", [True, False])
def test_the_command_writes_a_report_of_a_run(
    recipe: Recipe, images: Path, ratings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, readout: bool
) -> None:
    optim = recipe.optim.model_copy(update={"epochs": 1})
    run = tmp_path / "run"
    pretrain(recipe.model_copy(update={"optim": optim}), run)
    if readout:
        fit_run(run, [images], ratings, (), (0.0, 100.0))
    out = tmp_path / "report.html"
    rated = ("--images", str(images), "--ratings", str(ratings), "--report", str(out))
    monkeypatch.setattr("sys.argv", ["clicv2-train", "evaluate", "--model", str(run), *rated])
    with pytest.raises(SystemExit) as exit_info:
        cli.main()
    assert not exit_info.value.code
    text = Page(out.read_text()).text()
    assert "Training" in text
    assert "masked_entropy" in text
    assert ("calibrated score" in text) == readout
    assert ("On the line, the score equals the rating" in text) == readout


def test_the_template_is_shipped_in_the_wheel(tmp_path: Path) -> None:
    """What hatch packs is what git knows and does not ignore, inside the packages."""
    root = Path(report.__file__).parents[1]
    template = Path(report.__file__).parent / "templates" / report.TEMPLATE
    assert template.exists()
    ignored = subprocess.run(["git", "check-ignore", "-q", str(template)], cwd=root, check=False).returncode
    assert ignored == 1
