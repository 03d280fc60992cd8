"""Tars that were damaged, or made to do harm: an error after what comes before it, soon, and in little memory."""

import io
import random
import tarfile
import tracemalloc
from collections.abc import Callable
from typing import Literal

import pytest

from clicv2.tars import MAX_PREFACE, regular_files

Mode = Literal["r:", "r|"]
MODES: tuple[Mode, ...] = ("r:", "r|")
END = bytes(2 * tarfile.BLOCKSIZE)


def header(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def blocks(data: bytes) -> bytes:
    return data + bytes(-len(data) % tarfile.BLOCKSIZE)


def attributes(**values: str) -> bytes:
    """A pax header of what follows it."""
    lines = b""
    for name, value in values.items():
        text = f" {name}={value}\n"
        lines += f"{len(text) + 2}{text}".encode()
        assert 10 <= len(text) + 2 < 100, "two digits"
    return header("x", len(lines), tarfile.XHDTYPE) + blocks(lines)


GOOD = header("a.jpg", 3) + blocks(b"abc")


def found(data: bytes, mode: Mode) -> tuple[list[str], str]:
    """The names, and why there are no more."""
    names = []
    try:
        for _, member in regular_files(io.BytesIO(data), mode):
            names.append(member.name)
            assert len(names) < 10, "it never ends"
    except tarfile.TarError as error:
        return names, str(error)
    return names, ""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("end", [b"", bytes(100), bytes(512), END, END + b"anything", END + bytes(20_000)])
def test_an_end_is_no_damage(mode: Mode, end: bytes) -> None:
    assert found(GOOD + end, mode) == (["a.jpg"], "")


@pytest.mark.parametrize("mode", MODES)
def test_only_files_with_all_their_bytes(mode: Mode) -> None:
    others = (
        header("link", 0, tarfile.SYMTYPE) + header("folder", 0, tarfile.DIRTYPE) + header("p", 0, tarfile.FIFOTYPE)
    )
    assert found(others + GOOD + END, mode) == (["a.jpg"], "")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("spoilt", "why"),
    [
        (GOOD.replace(b"a", b"b", 1), "bad checksum"),
        (b"x" * 512, "invalid header"),
        (header("x", MAX_PREFACE + 1, tarfile.XHDTYPE), f"a header of {MAX_PREFACE + 1} bytes"),
        (header("x", 1 << 80, tarfile.GNUTYPE_LONGNAME), "a header of"),
        (header("x", 1 << 80), "a header of"),
        (header("x", -1), "a header of -1 bytes"),
        (attributes(size=str(10**30)) + header("b.jpg", 3) + blocks(b"abc"), f"a file of 1{30 * '0'} bytes"),
        # Back to itself: the same file again and again.
        (attributes(size="-1024") + header("b.jpg", 3) + blocks(b"abc"), "a file of -1024 bytes"),
        (attributes(comment="b") * 600 + GOOD, "recursion"),
        ((header("x", 3, tarfile.GNUTYPE_LONGNAME) + blocks(b"abc")) * 600 + GOOD, "recursion"),
    ],
    ids=["checksum", "nonsense", "long", "longer", "huge", "negative", "overflow", "loop", "attributes", "names"],
)
def test_damage_is_told_after_what_comes_before_it(mode: Mode, first: bool, spoilt: bytes, why: str) -> None:
    names, told = found(spoilt + GOOD + END if first else GOOD + spoilt + GOOD + END, mode)
    assert names == ([] if first else ["a.jpg"])
    assert why in told
    assert told.startswith("damaged: ")
    assert told.endswith("what follows is lost")


@pytest.mark.parametrize("mode", MODES)
def test_what_ends_too_soon(mode: Mode) -> None:
    """A stream says so once: `tarfile` would ask for all that the header claims, 10 kB at a time, for years."""
    names, told = found(GOOD + b"x" * 100, mode)
    assert names == ["a.jpg"]
    assert "truncated header" in told
    names, told = found(GOOD + header("b.jpg", 1 << 59) + b"abc", mode)
    assert names[0] == "a.jpg"
    assert told


@pytest.mark.parametrize("mode", MODES)
def test_a_header_is_not_read_into_memory_whatever_its_size(mode: Mode) -> None:
    size = 64 << 20
    data = header("x", size, tarfile.XHDTYPE) + bytes(size) + GOOD
    tracemalloc.start()
    try:
        assert "a header of" in found(data, mode)[1]
        assert tracemalloc.get_traced_memory()[1] < size
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("mode", MODES)
def test_the_largest_name_that_is_let_through(mode: Mode) -> None:
    name = "n" * (MAX_PREFACE - 1)
    data = header("x", MAX_PREFACE, tarfile.GNUTYPE_LONGNAME) + blocks(name.encode() + b"\0") + GOOD + END
    assert found(data, mode) == ([name], "")


def _flip(data: bytearray, chance: random.Random) -> None:
    data[chance.randrange(len(data))] = chance.randrange(256)


def _retype(data: bytearray, chance: random.Random) -> None:
    """A header that is wrong and has the right checksum."""
    start = tarfile.BLOCKSIZE * chance.randrange(len(data) // tarfile.BLOCKSIZE)
    low, high = chance.choice([(100, 148), (124, 136), (156, 157), (345, 500), (482, 483), (386, 400)])
    for at in range(start + low, start + high):
        data[at] = chance.choice((0, 255, 128, 48, 55, data[at]))
    total = sum(data[start : start + 148]) + 256 + sum(data[start + 156 : start + 512])
    data[start + 148 : start + 156] = b"%06o\0 " % total


@pytest.mark.parametrize("change", [_flip, _retype])
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_no_damage_raises_anything_else(change: Callable[[bytearray, random.Random], None], form: int) -> None:
    chance, whole = random.Random(form), io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w", format=form) as tar:
        for name in ("a.jpg", "l" * 150 + ".png", "é.webp"):
            info = tarfile.TarInfo(name)
            info.size = 600
            tar.addfile(info, io.BytesIO(bytes(600)))
    for _ in range(300):
        data = bytearray(whole.getvalue())
        for _ in range(chance.randrange(1, 4)):
            change(data, chance)
        for mode in MODES:
            found(bytes(data), mode)
