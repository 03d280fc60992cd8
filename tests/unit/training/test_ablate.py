"""Comparisons: the same budget for every variant, in parts, with one table."""

import json
from pathlib import Path

import pytest
import yaml

from training.ablate import COLUMNS, PICTURE, RESULT, TABLE, Ablation, Variant, ablate, merged
from training.data.images import find_images
from training.evaluate import LeakTest
from training.leak import FOLDS
from training.recipe import Recipe

SCALE = (0.0, 100.0)


@pytest.fixture
def comparison(recipe: Recipe, tmp_path: Path) -> Ablation:
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    content = {
        "base": "base.yaml",
        "epochs": 1,
        "variants": {
            "whole": {"title": "all parts"},
            "mem": {"title": "MEM alone", "changes": {"clicv2": {"contrast": False}}},
        },
    }
    (tmp_path / "comparison.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return Ablation.load(tmp_path / "comparison.yaml")


def test_changes_are_merged_into_the_base_and_the_budget_is_the_same(comparison: Ablation, recipe: Recipe) -> None:
    whole, mem = comparison.recipe("whole"), comparison.recipe("mem")
    assert (whole.name, mem.name) == ("whole", "mem")
    assert (whole.clicv2.contrast, mem.clicv2.contrast) == (True, False)
    assert mem.clicv2.view_size == recipe.clicv2.view_size
    assert whole.optim == mem.optim == recipe.optim.model_copy(update={"epochs": 1})


def test_what_all_variants_change_comes_before_what_one_does(comparison: Ablation) -> None:
    changed = comparison.model_copy(update={"changes": {"canvas": 144, "clicv2": {"contrast": True, "jitter": 0.1}}})
    whole, mem = changed.recipe("whole"), changed.recipe("mem")
    assert (whole.canvas, mem.canvas) == (144, 144)
    assert (whole.clicv2.contrast, mem.clicv2.contrast) == (True, False)
    assert (whole.clicv2.jitter, mem.clicv2.jitter) == (0.1, 0.1)


def test_merging_goes_as_deep_as_both_sides() -> None:
    assert merged({"a": {"x": 1, "y": 2}, "b": 3}, {"a": {"y": 5}, "b": {"c": 4}}) == {
        "a": {"x": 1, "y": 5},
        "b": {"c": 4},
    }


def test_a_comparison_is_made_in_parts_and_kept(
    comparison: Ablation, images: Path, ratings: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = ablate(comparison, out, [images], ratings, SCALE, only=["mem"])
    assert list(first) == ["mem"]
    before = (out / "mem" / RESULT).stat().st_mtime_ns
    both = ablate(comparison, out, [images], ratings, SCALE)
    assert list(both) == ["whole", "mem"]
    assert (out / "mem" / RESULT).stat().st_mtime_ns == before
    assert both["mem"] == first["mem"]
    assert {row.steps for row in both.values()} == {3}
    for row in both.values():
        assert set(row.figures) == set(COLUMNS) - {"content_leak"}
        assert all(f.low <= f.value <= f.high for f in row.figures.values())
    table = (out / TABLE).read_text().splitlines()
    assert len(table) == 4
    assert table[2].startswith("| all parts |")
    assert f"{both['mem'].figures['score_pcc'].value:.3f}" in table[3]
    assert (out / PICTURE).stat().st_size > 10_000


def test_a_head_that_was_not_trained_has_no_figures(
    comparison: Ablation, images: Path, ratings: Path, tmp_path: Path
) -> None:
    sp = Variant(title="SP alone", changes={"clicv2": {"masked_entropy": False}})
    alone = comparison.model_copy(update={"variants": {"sp": sp}})
    row = ablate(alone, tmp_path / "out", [images], ratings, SCALE)["sp"]
    assert set(row.figures) == {"score_pcc", "score_srcc", "heatmap_auc"}


def test_the_leak_is_measured_when_asked_also_of_what_was_done_before(
    comparison: Ablation, images: Path, ratings: Path, tmp_path: Path
) -> None:
    names = [source.name for source in find_images([images])]
    assert len(names) >= 2 * FOLDS
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("name,label\n" + "\n".join(f"{n},{'ab'[i % 2]}" for i, n in enumerate(names)) + "\n")
    out = tmp_path / "out"
    without = ablate(comparison, out, [images], ratings, SCALE, only=["mem"])["mem"]
    leak = LeakTest(manifest, (images,))
    row = ablate(comparison, out, [images], ratings, SCALE, only=["mem"], leak=leak)["mem"]
    assert set(row.figures) == set(COLUMNS)
    assert row.seconds == without.seconds  # it was not trained again


@pytest.mark.parametrize(
    ("changes", "complaint"), [({"clicv2": {"contrats": False}}, "contrats"), ({"method": "simclr"}, "method")]
)
def test_a_misspelt_change_is_found_before_anything_is_trained(
    comparison: Ablation, images: Path, ratings: Path, tmp_path: Path, changes: dict[str, object], complaint: str
) -> None:
    wrong = comparison.variants["mem"].model_copy(update={"changes": changes})
    broken = comparison.model_copy(update={"variants": {**comparison.variants, "wrong": wrong}})
    with pytest.raises(ValueError, match=complaint):
        ablate(broken, tmp_path / "out", [images], ratings, SCALE)
    assert not (tmp_path / "out").exists()


def test_an_unknown_variant_and_another_comparisons_folder_are_refused(
    comparison: Ablation, images: Path, ratings: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="no variant typo: there are whole, mem"):
        ablate(comparison, tmp_path / "out", [images], ratings, SCALE, only=["typo"])
    ablate(comparison, tmp_path / "out", [images], ratings, SCALE, only=["mem"])
    longer = comparison.model_copy(update={"epochs": 2})
    with pytest.raises(ValueError, match="another comparison"):
        ablate(longer, tmp_path / "out", [images], ratings, SCALE, only=["mem"])


def test_the_shipped_comparison_is_valid() -> None:
    comparison = Ablation.load(Path("training/configs/ablations/papers.yaml"))
    recipes = [comparison.recipe(name) for name in comparison.variants]
    for recipe in recipes:
        recipe.build_method()
    shipped = Recipe.load(comparison.base)
    assert {(r.encoder, r.input_size) for r in recipes} == {(shipped.encoder, shipped.input_size)}
    assert len({json.dumps(r.optim.model_dump()) for r in recipes}) == 1  # the same budget for all
