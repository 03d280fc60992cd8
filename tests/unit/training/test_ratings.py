"""Human ratings: reading them, and the scale that each group has of its own."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.data.ratings import load_ratings, standardise_within


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "art").mkdir(parents=True)
    for number in range(4):
        Image.new("RGB", (8, 8)).save(folder / "art" / f"{number}.png")
    return folder


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "ratings.csv"
    path.write_text(text)
    return path


def test_rows_find_their_images(tmp_path: Path, images: Path) -> None:
    text = "path,score,group\nart/2.png,7,b\nart/0.png,1.5,b\n./art/1.png,3,b\n"
    ratings = load_ratings(table(tmp_path, text), [images])
    assert [source.name for source in ratings.sources] == ["art/2.png", "art/0.png", "art/1.png"]
    assert ratings.scores.tolist() == [7.0, 1.5, 3.0]
    assert ratings.group_names == ["b"]
    assert len(ratings) == 3


def test_the_group_is_optional(tmp_path: Path, images: Path) -> None:
    text = "score,path\n1,art/0.png\n2,art/1.png\n3,art/2.png\n"
    assert load_ratings(table(tmp_path, text), [images]).group_names == ["all"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("file,score\nart/0.png,1\n", "no column path"),
        ("path,score\nart/9.png,1\n", "line 2: no image 'art/9.png'"),
        ("path,score\nart/0.png,high\n", "line 2: the score 'high'"),
        ("path,score\nart/0.png,nan\n", "line 2: the score 'nan'"),
        ("path,score,group\nart/0.png,1,a\nart/1.png,2,a\n", "group 'a'"),
        ("path,score\nart/0.png,1\nart/1.png,1\nart/2.png,1\n", "one score only"),
        ("path,score\n", "no ratings"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, images: Path, text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        load_ratings(table(tmp_path, text), [images])


def test_standardising_takes_each_groups_own_scale_out() -> None:
    values = np.array([1.0, 2.0, 3.0, 100.0, 300.0, 200.0, 5.0, 5.0])
    groups = np.array(["a"] * 3 + ["b"] * 3 + ["flat"] * 2)
    z = standardise_within(values, groups)
    assert z[:3].tolist() == pytest.approx([-1.2247449, 0, 1.2247449])
    assert z[3:6].tolist() == pytest.approx([-1.2247449, 1.2247449, 0])
    assert z[6:].tolist() == [0, 0]
