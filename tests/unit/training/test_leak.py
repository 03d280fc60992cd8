"""The probe for classes: what it finds, what it cannot, and which images it is shown."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.leak import FOLDS, load_labelled, measure_leak, probe


def clusters(per_class: int, classes: int, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features [N, 8] around a centre for each class."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, 8))
    names = np.repeat([f"class {c}" for c in range(classes)], per_class)
    return np.repeat(centres, per_class, axis=0) + spread * rng.normal(size=(len(names), 8)), names


def test_classes_that_lie_apart_are_all_named() -> None:
    features, names = clusters(20, 4, spread=0.05)
    found = measure_leak(features, names)
    assert (found.accuracy.value, found.accuracy.low, found.accuracy.high) == (1.0, 1.0, 1.0)
    assert (found.chance, found.classes, found.images) == (0.25, 4, 80)


def test_features_that_know_nothing_are_at_chance() -> None:
    rng = np.random.default_rng(0)
    names = np.array(["a"] * 150 + ["b"] * 150)
    found = measure_leak(rng.normal(size=(300, 4)), names)
    assert found.accuracy.low < 0.5 < found.accuracy.high
    half = 1.96 * np.sqrt(found.accuracy.value * (1 - found.accuracy.value) / 300)
    assert found.accuracy.high - found.accuracy.low == pytest.approx(2 * half, rel=0.15)


def test_no_image_has_a_say_in_its_own_class() -> None:
    """With more features than images, a probe that had seen an image would name its class."""
    rng = np.random.default_rng(1)
    found = measure_leak(rng.normal(size=(60, 200)), np.array(["a", "b", "c"] * 20))
    assert found.accuracy.value < 0.55


def test_a_probe_is_the_best_linear_one() -> None:
    """Against the analytic solution: two Gaussians of one covariance are best told apart by Fisher's discriminant."""
    rng = np.random.default_rng(0)
    mix = np.array([[2.0, 0.0], [1.9, 0.3]])
    classes = rng.integers(0, 2, 4000)
    features = (rng.normal(size=(4000, 2)) @ mix.T + np.outer(classes, [0.0, 1.0])) * [1, 1000]  # scales differ
    asked, truth = features[3000:], classes[3000:]
    normal = np.linalg.solve(mix @ mix.T, [0.0, 1.0]) / [1, 1000]
    fisher = (asked @ normal > np.array([0.0, 500.0]) @ normal).astype(int)
    named = probe(features[:3000], classes[:3000], asked, 2)
    assert (named == fisher).mean() > 0.97
    assert (named == truth).mean() > 0.9


def test_a_feature_that_never_varies_does_no_harm() -> None:
    features, names = clusters(10, 3, spread=0.05)
    features[:, 0] = 7.0
    assert measure_leak(features, names).accuracy.value == 1.0


def test_scale_and_order_of_the_classes_do_not_matter() -> None:
    features, names = clusters(20, 3, spread=1.5)
    found = measure_leak(features, names)
    assert measure_leak(features, names) == found
    assert measure_leak(features * 1e3 + 5, names).accuracy.value == pytest.approx(found.accuracy.value, abs=0.02)
    assert 0.4 < found.accuracy.value < 1.0


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """Two shards with images of the same names, and a manifest that labels most of them."""
    rows = ["shard,name,source,label,licence"]
    for shard in range(2):
        folder = tmp_path / f"{shard}"
        folder.mkdir()
        with tarfile.open(tmp_path / f"pool-{shard}.tar", "w") as tar:
            for number in range(20):
                file = folder / f"{number:02}.png"
                Image.new("RGB", (8, 8), (shard * 100, number * 10, 0)).save(file)
                tar.add(file, file.name)
                label = "" if number >= 18 else "rare" if number == 17 else f"class {number % 2}"
                rows.append(f'pool-{shard}.tar,{file.name},made,{label},"none, really"')
                file.unlink()
        folder.rmdir()
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_labelled_images_are_found_in_their_shards(pool: Path) -> None:
    found = load_labelled(pool / "manifest.csv", [pool])
    assert len(found) == 34  # of 40: without the unlabelled, and without the class of two images
    assert set(found.labels.tolist()) == {"class 0", "class 1"}
    assert {(s.file.name, s.name) for s in found.sources} == {
        (f"pool-{shard}.tar", f"{number:02}.png") for shard in range(2) for number in range(17)
    }
    assert all(label == f"class {int(s.name[:2]) % 2}" for s, label in zip(found.sources, found.labels, strict=True))


def test_the_limit_draws_at_random_by_the_seed(pool: Path) -> None:
    first, again, other = (load_labelled(pool / "manifest.csv", [pool], limit=24, seed=seed) for seed in (0, 0, 1))
    assert first.sources == again.sources != other.sources
    assert 20 <= len(first) <= 24


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name,source\n00.png,made\n", "no column label"),
        ("name,label\n" + "00.png,a\n" * FOLDS + "99.png,b\n" * FOLDS, "no image '99.png'"),
        ("shard,name,label\n" + "pool-9.tar,00.png,a\n" * FOLDS + "pool-0.tar,01.png,b\n" * FOLDS, "of pool-9.tar"),
        ("name,label\n" + "00.png,a\n" * FOLDS + "01.png,b\n", "only 1 classes"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(pool: Path, text: str, complaint: str) -> None:
    (pool / "other.csv").write_text(text)
    with pytest.raises(ValueError, match=complaint):
        load_labelled(pool / "other.csv", [pool])
