"""Arguments -> pictures: folders, shards, patterns, lists; and paths as text that means one path alone."""

import glob
import gzip
import io
import os
import random
import sys
import tarfile
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import encode, noise

from clicv2.errors import TooLarge
from service.files.finding import Finder, Picture, Trouble, Uncountable, locate
from service.files.heatmaps import Heatmaps, slug
from service.files.names import as_path, as_text, one_line
from service.files.packed import Member, Room
from service.files.piped import BadList
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


def shard(path: Path, *names: str, mode: str = "w") -> None:
    with tarfile.open(path, mode) as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(os.fsencode(name))
            tar.addfile(info, io.BytesIO(os.fsencode(name)))


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


class Drops:
    """A stream that has a byte at a time."""

    def __init__(self, data: bytes) -> None:
        self._stream = io.BytesIO(data)

    def read(self, _: int) -> bytes:
        return self._stream.read(1)


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


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("limit", [None, 10])
def test_a_picture_itself(monkeypatch: pytest.MonkeyPatch, form: str, limit: int | None) -> None:
    data = encode(noise(300, 200), form)
    given_on_stdin(monkeypatch)(data)
    (found,) = Finder(["-"])
    assert isinstance(found, Picture)
    assert found.path == "-"
    found.hold(limit)
    if limit:
        with pytest.raises(TooLarge):
            found.source.read(limit)
    else:
        assert found.source.read(len(data)) == data


def test_a_picture_comes_in_drops(monkeypatch: pytest.MonkeyPatch) -> None:
    """As over a slow network; a list that begins like one stays a list."""
    data = encode(noise(9, 9), "WEBP")
    for content, expected in ((data, ["-"]), (b"RIFF", ["RIFF"]), (b"R\nIFF.jpg\n", ["R", "IFF.jpg"])):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=SimpleNamespace(raw=Drops(content))))
        (first, *others) = Finder(["-"])
        assert isinstance(first, Picture)
        first.hold(None)
        assert [first.path, *(each.path for each in others)] == expected
        if expected == ["-"]:
            assert first.source.read() == data


@pytest.mark.parametrize("data", [b"a.jpg\0b.jpg\0", b"GIF89a\0\0"])
def test_what_is_neither_a_list_nor_a_picture(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    given_on_stdin(monkeypatch)(data)
    with pytest.raises(BadList, match="--null"):
        list(Finder(["-"]))


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
    assert "damaged: bad checksum; what follows is lost" in troubles["x/bad.tar"]


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
    assert {path: source.read() for path, source in locate(wanted)} == {
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


PACKED = {"s.tar.gz": "w:gz", "s.tgz": "w:gz", "s.TAR.xz": "w:xz", "s.txz": "w:xz"} | {
    "s.tar.bz2": "w:bz2",
    "s.tbz2": "w:bz2",
}


def read_as_it_comes(*arguments: str) -> dict[str, bytes]:
    found = {}
    for each in Finder(arguments):
        assert isinstance(each, Picture), each
        each.hold(None)
        found[each.path] = each.source.read()
    return found


@pytest.mark.parametrize(("name", "mode"), PACKED.items())
def test_compressed_shards_are_as_plain_ones(folder: Path, name: str, mode: str) -> None:
    names = ("./i.jpg", "deep/j.png", "k.txt", "caf\udce9.webp", "l" * 150 + ".jpg")
    (folder / "plain").mkdir()
    (folder / "packed").mkdir()
    shard(folder / "plain/s.tar", *names)
    shard(folder / "packed" / name, *names, mode=mode)
    plain, packed = read_as_it_comes("plain"), read_as_it_comes("packed")
    assert len(packed) == 4
    assert {path.removeprefix(f"packed/{name}"): data for path, data in packed.items()} == {
        path.removeprefix("plain/s.tar"): data for path, data in plain.items()
    }
    wanted = [f"packed/{name}/deep/j.png", f"packed/{name}/gone.jpg"]
    assert [(path, source.read()) for path, source in locate(wanted)] == [(wanted[0], b"deep/j.png")]
    with pytest.raises(Uncountable):
        list(Finder(["packed"], unpack=False))


def damaged(folder: Path, change: Callable[[bytes], bytes], mode: str = "gz") -> tuple[list[str], list[str]]:
    """What is found of a shard of 40 pictures, and why there is no more."""
    path = folder / f"s.tar.{mode}"
    with tarfile.open(path, f"w:{mode}") as tar:
        for n in range(40):
            info = tarfile.TarInfo(f"{n}.jpg")
            info.size = 20_000
            tar.addfile(info, io.BytesIO(random.Random(n).randbytes(info.size)))
    path.write_bytes(change(path.read_bytes()))
    found = []
    for each in Finder([str(path)]):
        if isinstance(each, Picture):
            each.hold(None)
        found.append(each)
    assert all(isinstance(each, Picture) for each in found[:-1])
    return (
        [each.path for each in found if isinstance(each, Picture)],
        [each.why for each in found if isinstance(each, Trouble)],
    )


@pytest.mark.parametrize("mode", ["gz", "xz", "bz2"])
def test_a_compressed_shard_that_is_cut_gives_what_was_before(folder: Path, mode: str) -> None:
    found, why = damaged(folder, lambda data: data[: len(data) // 2], mode)
    assert len(why) == 1, why
    # bzip2's blocks are of 900 kB, and all is in the first.
    assert 10 < len(found) < 30 or mode == "bz2"


@pytest.mark.parametrize("at", [0, 2, 400_000, -3])
@pytest.mark.parametrize("mode", ["gz", "xz", "bz2"])
def test_a_compressed_shard_that_was_altered_is_told(folder: Path, mode: str, at: int) -> None:
    def alter(data: bytes) -> bytes:
        changed = bytearray(data)
        changed[at] ^= 0x55
        return bytes(changed)

    assert damaged(folder, alter, mode)[1], "nobody would know"


def test_what_a_damaged_shard_holds_is_an_error_of_its_own(folder: Path) -> None:
    shard(folder / "s.tar.gz", "a.jpg", mode="w:gz")
    whole = gzip.decompress((folder / "s.tar.gz").read_bytes())
    (folder / "s.tar.gz").write_bytes(gzip.compress(whole[:515]))
    found = iter(Finder(["s.tar.gz"]))
    picture = next(found)
    assert isinstance(picture, Picture)
    picture.hold(None)
    with pytest.raises(OSError, match="the shard is damaged: unexpected end of data"):
        picture.source.read()
    assert [type(each) for each in found] == [Trouble]


def test_what_could_not_be_held_leaves_its_room() -> None:
    room = Room(10)

    def damaged() -> bytes:
        raise zlib.error

    for _ in range(3):
        broken = Member("a.jpg", Path("s.tar.gz"), 10, damaged, room)
        broken.hold()
        with pytest.raises(OSError, match="the shard is damaged: error"):
            broken.read()


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_that_would_fill_memory_is_refused(folder: Path, kind: bytes) -> None:
    bomb = tarfile.TarInfo("x")
    bomb.size, bomb.type = 1 << 40, kind
    (folder / "s.tar.gz").write_bytes(gzip.compress(bomb.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20)))
    (trouble,) = Finder(["s.tar.gz"])
    assert isinstance(trouble, Trouble)
    assert "a header of 1099511627776 bytes" in trouble.why


def test_a_header_that_is_damaged_is_no_end_of_a_compressed_shard(folder: Path) -> None:
    shard(folder / "s.tar.gz", "a.jpg", "b.jpg", mode="w:gz")
    whole = bytearray(gzip.decompress((folder / "s.tar.gz").read_bytes()))
    whole[1024 + 8] ^= 1
    (folder / "s.tar.gz").write_bytes(gzip.compress(whole))
    first, second = Finder(["s.tar.gz"])
    assert isinstance(first, Picture)
    assert isinstance(second, Trouble)
    assert "what follows is lost" in second.why


@pytest.mark.parametrize("name", ["s.tar.zst", "s.tzst", "s.tar.lz4"])
def test_what_nobody_can_unpack_is_told(folder: Path, name: str) -> None:
    (folder / "x" / name).touch()
    troubles = [each for each in Finder(["x"]) if isinstance(each, Trouble)]
    assert [(each.path, each.why[-9:]) for each in troubles] == [(f"x/{name}", "unpack it")]


def test_one_that_is_too_large_is_not_held() -> None:
    room = Room(10)
    loaded = []
    member = Member("a.jpg", Path("s.tar.gz"), 100, lambda: loaded.append(1) or b"", room)  # type: ignore[func-returns-value]
    member.hold(99)
    with pytest.raises(TooLarge):
        member.read(99)
    assert not loaded
    member.hold(100)
    assert member.read(100) == b""
    assert loaded == [1]
    with pytest.raises(ValueError, match="not held"):
        member.read(100)


def test_what_waits_is_bounded() -> None:
    room = Room(10)

    def member(size: int) -> Member:
        return Member("a", Path("s.tar.gz"), size, lambda: bytes(size), room)

    def waits(size: int, before: list[Member]) -> Member:
        """It is held once those before it are read, and not before."""
        found = member(size)
        holding = threading.Thread(target=found.hold)
        holding.start()
        holding.join(0.2)
        assert holding.is_alive()
        for each in before:
            assert each.read() == bytes(each.size)
        holding.join(10)
        assert not holding.is_alive()
        return found

    first, second = member(6), member(4)
    first.hold()
    second.hold()
    third = waits(1, [first])
    larger_than_the_room = waits(50, [second, third])
    assert waits(1, [larger_than_the_room]).read() == b"\0"
