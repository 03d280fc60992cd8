"""Human ratings: reading them in either layout, and the scale that each group has of its own."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.data.ratings import load_ratings, standardise_within, usual_scale


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
        ("path,score\nart/0.png\n", "line 2: the score ''"),
        ("path,score\nart/0.png,1\nart/1.png,2\n./art/0.png,3\n", "line 4: './art/0.png' is rated in line 2 already"),
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


def test_one_image_may_be_rated_in_two_groups(tmp_path: Path, images: Path) -> None:
    rows = [f"art/{n}.png,{n + (group == 'b')},{group}" for group in "ab" for n in range(4)]
    ratings = load_ratings(table(tmp_path, "path,score,group\n" + "\n".join(rows) + "\n"), [images])
    assert len(ratings) == 8


def test_a_spreadsheets_byte_order_mark_is_no_part_of_the_header(tmp_path: Path, images: Path) -> None:
    text = "\ufeffpath,score\r\nart/0.png,1\r\nart/1.png,2\r\nart/2.png,3\r\n"
    assert load_ratings(table(tmp_path, text), [images]).scores.tolist() == [1.0, 2.0, 3.0]


def test_what_is_no_text_is_refused(tmp_path: Path, images: Path) -> None:
    path = tmp_path / "ratings.csv"
    path.write_bytes(b"path,score\n\xff\xfe,1\n")
    with pytest.raises(ValueError, match=r"ratings\.csv is no text in UTF-8"):
        load_ratings(path, [images])


@pytest.fixture
def ic9600(tmp_path: Path) -> Path:
    """Four images with names as in IC9600, one of them with blanks."""
    folder = tmp_path / "ic9600"
    folder.mkdir()
    for name in ("abstract_1.jpg", "object_two words.jpg", "scene_3.jpg", "transport_4.jpg"):
        Image.new("RGB", (8, 8)).save(folder / name)
    return folder


def listed(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "train.txt"
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_ic9600s_lists_are_one_group_on_one_scale(tmp_path: Path, ic9600: Path, end: str) -> None:
    lines = ["transport_4.jpg  0.25", "abstract_1.jpg  0", "object_two words.jpg  1.0 ", "scene_3.jpg  5e-1"]
    path = listed(tmp_path, end.join(lines) + end)
    ratings = load_ratings(path, [ic9600])
    assert [s.name for s in ratings.sources] == [
        "transport_4.jpg",
        "abstract_1.jpg",
        "object_two words.jpg",
        "scene_3.jpg",
    ]
    assert ratings.scores.tolist() == [0.25, 0.0, 1.0, 0.5]
    assert ratings.group_names == ["all"]
    assert usual_scale(path) == (0.0, 1.0)
    assert usual_scale(tmp_path / "ratings.csv") == (0.0, 100.0)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("abstract_1.jpg 0.5", "line 2: 'abstract_1.jpg 0.5' is not a name, two blanks and a score"),
        ("abstract_1.jpg\t0.5", "line 2: .* is not a name, two blanks and a score"),
        ("abstract_1.jpg   0.5", "line 2: .* is not a name, two blanks and a score"),
        ("abstract_1.jpg,0.5", "line 2: .* is not a name, two blanks and a score"),
        ("", "line 2: '' is not a name, two blanks and a score"),
        ("abstract_1.jpg  0.5  abstract", "line 2: the score '0.5  abstract' is no finite number"),
        ("abstract_1.jpg  high", "line 2: the score 'high' is no finite number"),
        ("abstract_1.jpg  nan", "line 2: the score 'nan' is no finite number"),
        ("abstract_1.jpg  50", r"line 2: the score 50 is outside \[0, 1\]"),
        ("abstract_1.jpg  -0.1", r"line 2: the score -0.1 is outside \[0, 1\]"),
        ("abstract_2.jpg  0.5", "line 2: no image 'abstract_2.jpg'"),
        ("scene_3.jpg  0.5", "line 2: 'scene_3.jpg' is rated in line 1 already"),
    ],
)
def test_what_is_wrong_in_a_list_is_named(tmp_path: Path, ic9600: Path, line: str, complaint: str) -> None:
    path = listed(tmp_path, f"scene_3.jpg  0.1\n{line}\ntransport_4.jpg  0.2\nobject_two words.jpg  0.3\n")
    with pytest.raises(ValueError, match=f"train.txt, {complaint}"):
        load_ratings(path, [ic9600])


def test_only_some_of_the_ratings(tmp_path: Path, images: Path) -> None:
    rows = "path,score,group\n" + "".join(f"art/{n}.png,{n},a\n" for n in range(4))
    ratings = load_ratings(table(tmp_path, rows), [images])
    some = ratings.only(np.array([True, False, False, True]))
    assert [source.name for source in some.sources] == ["art/0.png", "art/3.png"]
    assert (some.scores.tolist(), some.groups.tolist()) == ([0.0, 3.0], ["a", "a"])
