"""Arguments -> pictures: folders, shards, patterns, lists; and paths as text that means one path alone."""

import glob
import io
import os
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.files.finding import Finder, Picture, Trouble, locate
from service.files.heatmaps import Heatmaps, slug
from service.files.names import as_path, as_text, one_line
from service.files.seen import Seen

NAMES = (
    "a.jpg",
    "b.PNG",
    "c.webp",
    "notes.txt",
    ".h.jpg",
    "x/d.jpg",
    "x/y/e.jpg",
    "x/y/f.txt",
    ".hid/g.jpg",
    "x.y/h.jpg",
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in NAMES:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shard(path: Path, *names: str) -> None:
    with tarfile.open(path, "w") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(name)
            tar.addfile(info, io.BytesIO(name.encode()))


def paths(*arguments: str, **options: object) -> list[str]:
    return [each.path for each in Finder(arguments, **options)]


def test_folders_files_and_shards(folder: Path) -> None:
    shard(folder / "x/s.tar", "i.jpg", "deep/j.png", "k.txt")
    assert paths("x", "notes.txt") == [
        "x/d.jpg", "x/s.tar/i.jpg", "x/s.tar/deep/j.png", "x/y/e.jpg",
        "notes.txt",  # what was named is taken to be a picture
    ]  # fmt: skip
    assert paths(".")[0] == ".h.jpg"
    assert paths("./x/") == paths("x")


@pytest.mark.parametrize(
    "pattern",
    ["*.jpg", "*", "x/*", "*/*.jpg", "**/*.jpg", "x/**/*.jpg", "**", "x/**", "[ab].*", "?.jpg", "x*/h.jpg", ".*"],
)
def test_patterns_match_as_in_a_shell(folder: Path, pattern: str) -> None:
    kinds = (".jpg", ".png", ".webp")
    matched = glob.glob(pattern, recursive=True)  # noqa: PTH207  # pathlib's takes hidden files
    expected = {match for match in matched if Path(match).is_file() and match.lower().endswith(kinds)}
    # ** does not enter hidden folders in a shell; here it does: they are looked through as folders are.
    found = set(paths(pattern))
    assert expected <= found
    assert all("hid" in path or ".h.jpg" in path for path in found - expected)


def test_a_pattern_in_a_loop_ends(folder: Path) -> None:
    (folder / "x/loop").symlink_to("..")
    (folder / "x/y/loop").symlink_to("../..")
    assert paths("**/e.jpg") == ["x/y/e.jpg"]


def test_a_name_with_a_bracket_is_itself(folder: Path) -> None:
    (folder / "[ab].jpg").write_text("")
    assert paths("[ab].jpg") == ["[ab].jpg"]


@pytest.mark.parametrize(
    ("argument", "why"), [("none.jpg", "no such file"), ("no*thing", "nothing matches"), ("a.jpg/b", "no such")]
)
def test_nothing_there_is_told_before_anything_begins(folder: Path, argument: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Finder(["a.jpg", argument]).check()
    Finder(["a.jpg", "*.webp", "-"]).check()


def given_on_stdin(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    def put(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(data))))  # type: ignore[arg-type]

    return put


@pytest.mark.parametrize("zero", [False, True])
def test_lists(folder: Path, monkeypatch: pytest.MonkeyPatch, zero: bool) -> None:
    end = b"\0" if zero else b"\n"
    given_on_stdin(monkeypatch)(end.join([b"a.jpg", b"x", b"missing.jpg", b"", b"n\xff.jpg"]))
    found = list(Finder(["-"], zero=zero))
    assert [each.path for each in found] == ["a.jpg", "x/d.jpg", "x/y/e.jpg", "missing.jpg", "n\\xff.jpg"]
    assert all(isinstance(each, Picture) for each in found)  # whether it can be read is seen when it is


def test_a_longer_list_than_is_read_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{n:050}.jpg" for n in range(5000)]
    given_on_stdin(monkeypatch)("\r\n".join(names).encode())
    assert paths("-") == names


def test_troubles_are_told_where_they_are(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard(folder / "x/bad.tar", "one.jpg", "two.jpg")
    data = bytearray((folder / "x/bad.tar").read_bytes())
    data[1024 + 8] ^= 1  # in the second header
    (folder / "x/bad.tar").write_bytes(data)
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: real(_refused(os.fspath(path))))
    found = list(Finder(["x"]))
    assert [each.path for each in found if isinstance(each, Picture)] == ["x/bad.tar/one.jpg", "x/d.jpg"]
    troubles = {each.path: each.why for each in found if isinstance(each, Trouble)}
    assert troubles["x/y"] == "Permission denied"
    assert "damaged at byte 1024" in troubles["x/bad.tar"]


def _refused(path: str) -> str:
    if path.endswith("y"):
        raise PermissionError(13, "Permission denied", path)
    return path


def test_links_to_folders_are_counted(folder: Path) -> None:
    (folder / "x/loop").symlink_to("..")
    finder = Finder(["x"])
    assert len(list(finder)) == 2
    assert finder.linked == 1


def test_what_is_ours_is_no_picture(folder: Path) -> None:
    assert "x/y/e.jpg" not in paths(".", skip=folder / "x/y")


def test_pictures_are_found_again(folder: Path) -> None:
    shard(folder / "x/s.tar", "i.jpg", "deep/j.png")
    wanted = ["a.jpg", "x/s.tar/deep/j.png", "gone.jpg", "x/s.tar/gone.jpg", "x"]
    found = locate(wanted)
    assert {path: source.read() for path, source in found.items()} == {
        "a.jpg": b"a.jpg",
        "x/s.tar/deep/j.png": b"deep/j.png",
    }


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=40).filter(lambda name: b"\0" not in name))
def test_a_text_stands_for_one_path(name: bytes) -> None:
    text = as_text(os.fsdecode(name))
    assert os.fsencode(as_path(text)) == name
    text.encode()
    assert text.isprintable() or not any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in text)


@settings(deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=6), min_size=2, max_size=2, unique=True))
def test_two_paths_have_two_texts(names: list[bytes]) -> None:
    first, second = (as_text(os.fsdecode(name)) for name in names)
    assert first != second


@pytest.mark.parametrize("text", ["a\\b", "\\x", "\\x41", "\\xg0", "a\\\\x0a"])
def test_texts_that_nobody_wrote(text: str) -> None:
    with pytest.raises(ValueError, match="not a path"):
        as_path(text)


def test_messages_stay_on_their_line() -> None:
    assert one_line("a\n\x1b[31mred\u2028 \udcff") == "a [31mred"
    assert len(one_line("x" * 10_000)) == 500


@settings(deadline=None)
@given(st.text(max_size=300))
def test_heatmaps_stay_in_their_folder(path: str) -> None:
    place = Heatmaps(Path("maps")).place(as_text(path))
    assert place.parent.parent == Path("maps")
    assert len(place.name.encode()) < 255
    assert not place.name.startswith(".")
    assert "/" not in slug(path)


def test_heatmaps_of_two_paths_do_not_collide() -> None:
    maps = Heatmaps(Path("maps"))
    assert len({maps.place(path) for path in ("a/x.jpg", "b/x.jpg", "x.jpg", "a/x_.jpg", "a/x .jpg", "A/x.jpg")}) == 6


def test_each_path_is_new_once(folder: Path) -> None:
    with Seen() as seen:
        seen.before("a.jpg")
        new = [each.path for each in seen.new(Finder(["a.jpg", "x", "x/d.jpg", "a.jpg", "b.PNG"]))]
    assert new == ["x/d.jpg", "x/y/e.jpg", "b.PNG"]
    assert seen.again == 2  # x/d.jpg, and a.jpg once more than it had to be found
