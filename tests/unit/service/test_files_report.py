"""The page: what it counts, whose names it shows, and that it stays small."""

import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from commands import app, run
from pictures import encode, noise, scene
from typer.testing import CliRunner

from clicv2 import contract
from clicv2.headers import Limits
from service.files.errors import Unwritable
from service.files.local import LocalScorer, contrast
from service.files.replacing import Replacement
from service.files.report import drawing
from service.files.report.page import render
from service.files.report.summary import BINS, DOTS, LISTED, Summary
from service.files.rows import Row

HOSTILE = '<script>alert(1)</script>"onload="x.jpg'


@pytest.fixture(scope="module")
def scorer(repository: Path) -> LocalScorer:
    return LocalScorer(contract.open_version(repository / "clicv2"), Limits(), 1)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(8):
        (folder / f"{seed}.png").write_bytes(encode(noise(64, 64, seed) // (seed + 1), "PNG"))
    (folder / "scene.jpg").write_bytes(encode(scene(300, 200), "JPEG"))
    (folder / "again.jpg").write_bytes(encode(scene(300, 200), "JPEG"))
    (folder / "blank.png").write_bytes(encode(np.full((50, 50, 3), 250, np.uint8), "PNG"))
    (folder / "<b>torn.jpg").write_bytes(b"text")
    (folder / HOSTILE.replace("/", "\\")).write_bytes(encode(noise(80, 80, 99), "PNG"))
    return folder


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """What a full disk is to this process; Python ignores the signal that comes with it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class Page(HTMLParser):
    """Tags and attributes as a browser would see them, and all text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text += data


def row(number: int, score: float, **fields: object) -> Row:
    return Row.model_validate(
        {"path": f"{number}.jpg", "score": score, "width": 100, "height": 100, "bytes": 1 + number, "percentile": 50}
        | fields
    )


def test_a_folder_becomes_a_page(photos: Path, repository: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    arguments = ["report", str(photos), "-o", str(out), "--examples", "3", "--model-repository", str(repository)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    page = Page(out.read_text())
    facts = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", out.read_text()))
    assert facts["pictures"] == "12"
    assert (facts["cannot be scored"], facts["nearly one colour"], facts["copies of others"]) == ("1", "1", "1")
    for name in ("scene.jpg", "again.jpg", "blank.png", "<b>torn.jpg", "not a picture"):
        assert name in page.text
    pictures = [attributes["src"] or "" for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == 2 * (3 + 3) + 2  # each with its heatmap, and two scales of colours
    assert all(source.startswith("data:image/jpeg;base64,") for source in pictures)


def test_a_page_fetches_nothing_and_runs_nothing(photos: Path, scorer: LocalScorer) -> None:
    summary = Summary(12)
    summary.take([Row(path=str(photos / "0.png"), score=0.5), Row(path=HOSTILE, error="<img src=x onerror=alert(1)>")])
    page = Page(render(summary, f"{HOSTILE} {{{{ 7 * 7 }}}}", scorer))
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "iframe", "object", "form", "base", "b" + "ody onload"}
    for _, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert HOSTILE in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert "<img src=x onerror=alert(1)>" in page.text


def test_the_most_and_the_least_complex_once_each() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(500).round(6)
    rows = [row(n, score, sha256=f"{n // 2:064}") for n, score in enumerate(scores.repeat(2))]  # two copies of each
    rng.shuffle(rows)  # type: ignore[arg-type]  # a list is shuffled too
    summary = Summary(10)
    summary.take(rows)
    assert [each.score for each in summary.most] == sorted(scores, reverse=True)[:10]
    assert [each.score for each in summary.least] == sorted(scores)[:10]
    assert len(summary._most._inside) == 10  # no more is kept of the others
    assert (summary.groups, summary.copies) == (500, 500)
    assert summary.median == pytest.approx(np.median(scores), abs=2e-3)
    assert summary.mean == pytest.approx(scores.mean())


@pytest.mark.parametrize(
    ("contrasts", "said"),
    [
        ((0.001, 0.5), "1"),
        ((0.001, None), "1 of 1; of the others the scores do not say"),
        ((None, None), "not known: a service made the scores"),
    ],
)
def test_what_nobody_has_looked_at_is_not_called_in_order(
    scorer: LocalScorer, contrasts: tuple[float | None, ...], said: str
) -> None:
    summary = Summary(0)
    summary.take(row(n, 0.5, contrast=contrast) for n, contrast in enumerate(contrasts))
    assert f"<dt>nearly one colour</dt><dd>{said}</dd>" in render(summary, "x", scorer)


def test_copies_are_listed_from_the_largest_group() -> None:
    summary = Summary(0)
    rows = [row(n, 0.5, sha256=f"{min(n, 3):064}") for n in range(40)] + [row(99, 0.5)]
    summary.take([*rows, row(77, 0.1, sha256=f"{1:064}")])
    assert [each.count for each in summary.duplicates] == [37, 2]
    assert len(summary.duplicates[0].paths) == 20
    assert (summary.groups, summary.copies) == (2, 37)


def test_everything_is_counted_and_little_is_listed(scorer: LocalScorer) -> None:
    """100,000 pictures of which each is something: the page stays below a megabyte."""
    summary = Summary(24)
    rng = np.random.default_rng(0)
    scores, sizes = rng.random(100_000), rng.lognormal(8, 2, 100_000)
    summary.take(
        row(n, float(s), bytes=1 + int(b), contrast=n % 7 / 100, sha256=f"{n % 60_000:064}")
        if n % 10
        else Row(path=f"{n}.jpg", error="torn " * 20)
        for n, (s, b) in enumerate(zip(scores, sizes, strict=True))
    )
    assert summary.scored + summary.broken.count == 100_000
    assert summary.histogram.sum() == summary.cells.sum() == summary.scored
    assert len(summary.broken.rows) == len(summary.constant.rows) == LISTED
    page = render(summary, "many", scorer)
    assert len(page) < 1_000_000
    assert "it is no longer there" in page
    assert len(re.findall('class="dot"', page)) == 0
    assert 0 < len(re.findall('class="box"', page)) <= summary.cells.size + BINS


@pytest.mark.parametrize("many", [1, 5, DOTS, DOTS + 1])
def test_dots_where_each_can_be_seen(many: int) -> None:
    summary = Summary(1)
    summary.take(row(n, 0.5, sha256=f"{n:064}") for n in range(many))
    chart = drawing.scatter(summary.cells, summary.named, summary.dots)
    assert len(chart.dots) == (many if many <= DOTS else 0)
    assert bool(chart.boxes) == (many > DOTS)
    for dot in chart.dots:
        assert drawing.LEFT <= dot.x <= drawing.WIDTH - drawing.RIGHT
        assert drawing.TOP <= dot.y <= drawing.HEIGHT - drawing.BOTTOM


def test_a_cell_names_a_picture_that_lies_in_it() -> None:
    summary = Summary(0)
    summary.take([*(row(n, 0.5, bytes=1) for n in range(2 * DOTS, 0, -1)), row(900_000, 0.1)])
    labels = {box.label for box in drawing.scatter(summary.cells, summary.named, summary.dots).boxes}
    assert labels == {
        "900000.jpg: about 83 bytes a pixel, score 0.10",
        "2,000 pictures, 1.jpg and others: about 0.0001 bytes a pixel, score 0.50",
    }


def test_the_histogram_is_to_scale() -> None:
    counts = np.zeros(BINS, np.int64)
    counts[10], counts[20] = 30, 10
    chart = drawing.histogram(counts, np.linspace(0, 1, 101).tolist(), 0.3)
    tall, short = chart.boxes
    assert tall.height == pytest.approx(3 * short.height, abs=0.2)
    assert tall.y + tall.height == pytest.approx(drawing.HEIGHT - drawing.BOTTOM, abs=0.1)
    assert "30 pictures, 75.0%; reference 2.5%" in tall.label
    heights = {point.split(",")[1] for point in chart.line.split()}
    assert len(heights) == 1  # a reference of equal shares is a level line


@pytest.mark.parametrize("scores", [[0.5], [0.0, 1.0], [0.0] * 5])
def test_the_smallest_sets(scores: list[float], scorer: LocalScorer) -> None:
    summary = Summary(3)
    summary.take(row(n, score) for n, score in enumerate(scores))
    assert "<svg" in render(summary, "few", scorer)
    bare = Summary(3)
    bare.take([Row(path="x", score=0.5)])  # of a table that says nothing else
    assert render(bare, "bare", scorer).count("<svg") == 1


def test_a_page_that_cannot_be_written_is_told_of_before_anything_is_scored(
    photos: Path, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(Summary, "take", lambda *_: pytest.fail("it was scored"))
    arguments = ["report", str(photos), "--model-repository", str(repository), "-o"]
    result = CliRunner().invoke(app, [*arguments, str(tmp_path / "file/r.html")])
    assert result.exit_code == 1
    assert "r.html cannot be written" in result.output


def test_a_page_takes_its_place_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    place, linked = tmp_path / "deep/r.html", tmp_path / "link.html"
    linked.symlink_to(place)
    with Replacement(place) as first, Replacement(linked) as second:
        first.write(b"first")
        assert place.read_bytes() == b"first"
        second.write(b"second")
    assert linked.is_symlink()
    assert place.read_bytes() == b"second"
    with pytest.raises(RuntimeError), Replacement(place):
        raise RuntimeError
    assert [path.name for path in place.parent.iterdir()] == ["r.html"], "nothing is left of those that were not whole"
    assert place.read_bytes() == b"second"


def test_a_full_disk_leaves_no_part_of_a_page(tmp_path: Path) -> None:
    with (
        file_size_limit(10),
        pytest.raises(Unwritable, match="File too large"),
        Replacement(tmp_path / "r.html") as page,
    ):
        page.write(b"more than ten bytes")
    assert not list(tmp_path.iterdir())


def test_a_page_goes_through_a_pipe(photos: Path, repository: Path) -> None:
    """And what stood there stays: no file takes the place of /dev/stdout."""
    done = run("report", photos, "--examples", "0", "--model-repository", repository, "-o", "/dev/stdout")
    assert done.returncode == 0
    assert done.stdout.startswith(b"<!doctype html>")
    assert Path("/dev/stdout").is_symlink()


def test_contrast() -> None:
    flat = np.full((64, 64, 3), 90, np.uint8)
    halves = flat.copy()
    halves[:, :32], halves[:, 32:] = 0, 255
    coloured = flat.copy()
    coloured[:32, :, 2] = 255  # grey says nothing of it
    assert contrast(flat) == 0
    assert contrast(halves) == 1
    assert contrast(coloured) > 0.5
    noise = np.random.default_rng(0).integers(0, 200, (50, 70, 3), np.uint8)
    assert contrast(noise) == pytest.approx(noise.reshape(-1, 3).std(axis=0).max() / 127.5, abs=1e-4)


@pytest.mark.parametrize("command", ["report", "select"])
def test_another_models_scores(command: str, repository: Path, tmp_path: Path) -> None:
    scores = tmp_path / "s.jsonl"
    scores.write_text(row(1, 0.5, model="clicv2:7", model_sha256="x").model_dump_json(exclude={"heatmap"}) + "\n")
    arguments = [command, "--scores", str(scores), "--model-repository", str(repository)]
    result = CliRunner().invoke(app, [*arguments, *(["-o", str(tmp_path / "r.html")] if command == "report" else [])])
    if command == "report":
        assert result.exit_code == 2
        assert "was scored by clicv2:7" in result.output
    else:  # scores of one table can be ranked, whoever made them
        assert result.exit_code == 0
        assert "1.jpg" in result.output


@pytest.mark.parametrize("command", ["report", "select"])
def test_nothing_to_look_at(command: str, repository: Path, tmp_path: Path) -> None:
    assert CliRunner().invoke(app, [command]).exit_code == 2
    (tmp_path / "a.txt").touch()
    result = CliRunner().invoke(app, [command, str(tmp_path), "--model-repository", str(repository)])
    assert result.exit_code == (1 if command == "report" else 0)


@pytest.mark.parametrize("highest", np.geomspace(0.025, 1, 60).tolist())
def test_an_axis_has_three_to_six_round_values(highest: float) -> None:
    steps = drawing._round_steps(highest)
    assert 3 <= len(steps) <= 6
    assert steps[0] == 0
    assert steps[-1] <= highest + 1e-9
    labels = [f"{100 * step:.3g}%" for step in steps]
    assert len(set(labels)) == len(labels)
