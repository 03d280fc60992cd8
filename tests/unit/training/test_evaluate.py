"""Evaluation through the command line: what is asked for is in the tables and in the JSON."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_model
from PIL import Image

from clicv2.contract import MANIFEST_FILE
from training import cli
from training.classical import MEAN_Z, MEASURES, RIDGE, jpeg_size, local_gradient_energy
from training.data.images import ImageDataset
from training.data.ratings import file_sha256, load_ratings
from training.evaluate import Evaluation, LeakTest, Questions, evaluate
from training.localisation import PICTURES, area_under_curve
from training.metrics import agreement, rmse, srcc
from training.tables import IN_SAMPLE, further_table, summary_table, title


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that scores pictures by their horizontal gradients."""
    return tiny_model.write(tmp_path_factory.mktemp("repository")) / "clicv2"


@pytest.fixture(scope="module")
def manifest(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels of the twelve pictures: coarse or fine."""
    rows = [f"{n:02}.png,{'coarse' if n < 6 else 'fine'}" for n in range(12)]
    path = tmp_path_factory.mktemp("labels") / "manifest.csv"
    path.write_text("name,label\n" + "\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def result(repository: Path, images: Path, ratings: Path, manifest: Path) -> Evaluation:
    questions = Questions(
        (0.0, 100.0), baselines=True, heatmaps=True, leak=LeakTest(manifest, (images,)), evidence=True
    )
    return evaluate(repository, [images], ratings, questions=questions)


def run_cli(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> object:
    """The exit code."""
    monkeypatch.setattr("sys.argv", ["clicv2-train", "evaluate", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_info:
        cli.main()
    return exit_info.value.code


def test_only_the_calibrated_score_has_an_rmse(result: Evaluation) -> None:
    assert list(result.outputs) == ["score", "entropy"]
    assert list(result.outputs["score"].mean) == ["pcc", "srcc", "rmse"]
    for other in (result.outputs["entropy"], *result.baselines.values()):
        assert list(other.mean) == ["pcc", "srcc"]


def test_the_rmse_is_of_the_score_against_ratings_of_0_to_1(result: Evaluation) -> None:
    evidence = result.evidence
    assert evidence is not None
    assert evidence.scores.score is not None
    errors = [
        rmse(evidence.scores.score[chosen], evidence.ratings.scores[chosen] / 100)
        for chosen in (evidence.ratings.groups == "even", evidence.ratings.groups == "odd")
    ]
    assert result.outputs["score"].mean["rmse"].value == pytest.approx(np.mean(errors))


def test_baselines_are_measured_on_the_same_pictures(
    result: Evaluation, repository: Path, images: Path, ratings: Path
) -> None:
    assert list(result.baselines) == [*MEASURES, MEAN_Z, RIDGE]
    table = load_ratings(ratings, [images])
    dataset = ImageDataset(table.sources, tiny_model.SPEC)
    sizes = np.array([jpeg_size(dataset[i].numpy()) for i in range(len(dataset))])
    expected = agreement(sizes, table.scores, table.groups)
    assert result.baselines["jpeg_size"] == expected
    even = table.groups == "even"
    assert expected.groups["srcc"]["even"].value == pytest.approx(srcc(sizes[even], table.scores[even]))


def test_heatmaps_are_judged_on_composed_pictures(result: Evaluation) -> None:
    """The model marks gradients, so it finds what is busy, nearly as well as the classical measure."""
    assert result.localisation["heatmap"].pictures == PICTURES
    assert result.localisation["heatmap"].auc.value > 0.9
    assert result.localisation["local_gradient_energy"].auc.value > 0.9
    assert result.evidence is not None
    areas = [
        area_under_curve(local_gradient_energy(picture.pixels, (8, 8)), picture.busy)
        for picture in result.evidence.composed
    ]
    assert result.localisation["local_gradient_energy"].auc.value == pytest.approx(np.mean(areas))


def test_the_leak_is_measured_on_the_embedding_and_on_the_baselines(result: Evaluation) -> None:
    assert set(result.leak) == {"embedding", "classical_measures"}
    for leak in result.leak.values():
        assert (leak.images, leak.classes, leak.chance) == (12, 2, 0.5)
    assert result.leak["classical_measures"].accuracy.value > 0.8  # coarse and fine differ in gradients


def test_what_is_not_asked_for_is_not_measured(repository: Path, images: Path, ratings: Path) -> None:
    plain = evaluate(repository, [images], ratings)
    assert (plain.baselines, plain.localisation, plain.leak, plain.evidence) == ({}, {}, {}, None)
    assert list(plain.outputs["score"].mean) == ["pcc", "srcc"]
    assert further_table(plain) is None


def test_the_command_answers_all_questions_in_json(
    repository: Path,
    images: Path,
    ratings: Path,
    manifest: Path,
    result: Evaluation,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rated = ("--model", repository, "--images", images, "--ratings", ratings)
    asked = ("--baselines", "--heatmaps", "--leak-manifest", manifest, "--leak-images", images, "--scale", 0, 100)
    assert not run_cli(monkeypatch, *rated, *asked, "--json")
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(json.dumps(result.to_dict()))
    assert "evidence" not in printed
    assert printed["outputs"]["score"]["mean"]["rmse"]["value"] > 0
    assert printed["leak"]["embedding"]["chance"] == 0.5
    assert printed["localisation"]["heatmap"]["auc"]["low"] > 0.5
    assert printed["about"]["bytes"] > 0


def test_the_command_prints_tables(
    repository: Path,
    images: Path,
    ratings: Path,
    manifest: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rated = ("--model", repository, "--images", images, "--ratings", ratings)
    asked = ("--baselines", "--heatmaps", "--leak-manifest", manifest, "--leak-images", images)
    monkeypatch.setenv("COLUMNS", "160")
    assert not run_cli(monkeypatch, *rated, *asked)
    printed = capsys.readouterr().out
    for word in ("RMSE", "edge density", "ridge on these measures", "200 composed pictures", "2 classes, 12 images"):
        assert word in printed


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--leak-manifest", "nowhere.csv"], "go together"),
        (["--leak-manifest", "nowhere.csv", "--leak-images", "."], "No such file"),
        (["--scale", "0", "10"], "outside the scale"),
        (["--scale", "100", "0"], "a scale rises"),
        (["--report", "no/such/folder/report.html"], "no folder"),
    ],
)
def test_a_question_that_makes_no_sense_is_a_message(
    repository: Path,
    images: Path,
    ratings: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    complaint: str,
) -> None:
    rated = ("--model", repository, "--images", images, "--ratings", ratings)
    assert run_cli(monkeypatch, *rated, *arguments) == 2
    assert complaint in " ".join(capsys.readouterr().err.split())


def test_a_summary_has_a_row_for_each_output_and_baseline(result: Evaluation) -> None:
    table = summary_table(result)
    assert [column.header for column in table.columns] == ["", "PCC", "SRCC", "RMSE"]
    assert table.row_count == 2 + len(MEASURES) + 2
    cells = list(table.columns[3].cells)
    assert cells[0] != "-"
    assert set(cells[1:]) == {"-"}


def test_after_fine_tuning_nothing_is_called_label_free(result: Evaluation) -> None:
    assert "label-free" in title("entropy", result)
    assert "label-free" not in title("entropy", replace(result, label_free=False))


@pytest.mark.parametrize("fitted", [False, True])
def test_a_model_that_was_fitted_to_the_ratings_is_said_to_be(
    images: Path,
    ratings: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fitted: bool,
) -> None:
    repository = tiny_model.write(tmp_path) / "clicv2"
    path = repository / "1" / MANIFEST_FILE
    content = json.loads(path.read_text())
    content["data"]["ratings_sha256"] = file_sha256(ratings) if fitted else "of others"
    path.write_text(json.dumps(content))
    assert not run_cli(monkeypatch, "--model", repository, "--images", images, "--ratings", ratings)
    assert (IN_SAMPLE in " ".join(capsys.readouterr().err.split())) == fitted


def test_the_same_seed_gives_the_same_figures(repository: Path, images: Path, ratings: Path) -> None:
    asked = Questions(heatmaps=True)
    first, again, other = (evaluate(repository, [images], ratings, questions=asked, seed=s) for s in (1, 1, 2))
    assert first == again
    assert first.localisation != other.localisation


def test_a_picture_that_cannot_be_read_is_named(repository: Path, tmp_path: Path) -> None:
    for number in range(3):
        Image.new("RGB", (8, 8), (number * 80, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "1.png").write_bytes(b"nothing")
    (tmp_path / "ratings.csv").write_text("path,score\n0.png,1\n1.png,2\n2.png,3\n")
    with pytest.raises(ValueError, match=r"1\.png"):
        evaluate(repository, [tmp_path], tmp_path / "ratings.csv")
