"""Archives as friends and as enemies make them; what tarfile and zipfile write is the oracle."""

import contextlib
import gzip
import io
import itertools
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clicv2.errors import Corrupt, ImageError
from service.archives import Archive, ArchiveLimits, Gunzip, TarStream, ZipBody, refuse_archive
from service.errors import BadEntry, MalformedUpload, MissingFile, ServiceError, TooManyFiles, UploadTooLarge
from service.items import Item

LIMITS = ArchiveLimits(max_bytes=1_000_000, max_entry_bytes=10_000, max_files=20)
FILES = {"a.png": b"first", "folder/b.png": bytes(range(256)) * 20, "empty.png": b"", "ä" * 150 + ".png": b"x" * 512}
names = st.text(st.characters(codec="utf-8", exclude_characters="\0/\\"), min_size=1, max_size=200).map(
    lambda name: f"n{name}"
)


def tar(
    files: Mapping[str, bytes], tar_format: int = tarfile.PAX_FORMAT, more: Iterable[tarfile.TarInfo] = ()
) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as archive:
        for entry in more:
            archive.addfile(entry, io.BytesIO(bytes(entry.size)))
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def zipped(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def special(name: str, kind: bytes) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type = kind
    entry.linkname = "/etc/passwd"
    return entry


def unpack(archive: Archive, data: bytes, cuts: Iterable[int] = ()) -> dict[str, bytes | Exception]:
    edges = [0, *sorted(cuts), len(data)]
    items: list[Item] = []
    for start, stop in itertools.pairwise(edges):
        items += archive.write(data[start:stop])
    items += archive.finish()
    return {item.name: read(item) for item in items}


def read(item: Item) -> bytes | Exception:
    try:
        return item.read()
    except (ServiceError, ImageError) as error:
        return error


def kinds(found: Mapping[str, bytes | Exception]) -> dict[str, object]:
    return {name: type(end) if isinstance(end, Exception) else end for name, end in found.items()}


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars_of_every_format(tar_format: int) -> None:
    files = dict(FILES)
    if tar_format == tarfile.USTAR_FORMAT:
        files.pop("ä" * 150 + ".png")  # too long for it
    assert unpack(TarStream(LIMITS), tar(files, tar_format)) == files


@settings(deadline=None)
@given(
    st.dictionaries(names, st.binary(max_size=1500), min_size=1, max_size=8),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    st.lists(st.integers(0, 20_000), max_size=10),
)
def test_however_a_tar_is_cut_up(files: dict[str, bytes], tar_format: int, cuts: list[int]) -> None:
    data = tar(files, tar_format)
    assert unpack(TarStream(LIMITS), data, [cut % len(data) for cut in cuts]) == files


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zips(method: int) -> None:
    data = zipped(FILES, method)
    assert unpack(ZipBody(LIMITS), data, [1, 100, 101]) == FILES


def test_a_tar_gz_in_parts() -> None:
    data = tar(FILES)
    parts = gzip.compress(data[:700]) + gzip.compress(b"") + gzip.compress(data[700:]) + bytes(100)
    for size in (1, 7, 1000, len(parts)):
        gunzip, archive = Gunzip(), TarStream(LIMITS)
        items = [
            item
            for at in range(0, len(parts), size)
            for piece in gunzip.write(parts[at : at + size])
            for item in archive.write(piece)
        ]
        gunzip.finish()
        items += archive.finish()
        assert {item.name: item.read() for item in items} == FILES


def test_gunzip_gives_small_pieces_and_all_of_them() -> None:
    bomb = gzip.compress(bytes(30_000_000))
    assert len(bomb) < 40_000
    for size in (len(bomb), 1000, 1):
        gunzip = Gunzip()
        pieces = [len(piece) for at in range(0, len(bomb), size) for piece in gunzip.write(bomb[at : at + size])]
        gunzip.finish()
        assert max(pieces) <= 65_536
        assert sum(pieces) == 30_000_000


@pytest.mark.parametrize("data", [gzip.compress(b"abc", mtime=0)[:-1], b"", b"\x1f\x8b\x08"])
def test_a_gzip_that_ends_early(data: bytes) -> None:
    gunzip = Gunzip()
    list(gunzip.write(data))
    with pytest.raises(MalformedUpload):
        gunzip.finish()


def test_a_gzip_of_nothing_again_and_again() -> None:
    with pytest.raises(MalformedUpload, match="parts"):
        list(Gunzip().write(gzip.compress(b"") * 20_000))


def test_what_is_no_picture_in_a_tar() -> None:
    more = [
        special("link", tarfile.SYMTYPE),
        special("hard", tarfile.LNKTYPE),
        special("disk", tarfile.BLKTYPE),
        special("tty", tarfile.CHRTYPE),
        special("pipe", tarfile.FIFOTYPE),
        special("folder", tarfile.DIRTYPE),
    ]
    found = kinds(unpack(TarStream(LIMITS), tar({"a.png": b"a", "._a.png": b"mac", "x/.DS_Store": b"mac"}, more=more)))
    assert found == {
        "link": BadEntry,
        "hard": BadEntry,
        "disk": BadEntry,
        "tty": BadEntry,
        "pipe": BadEntry,
        "a.png": b"a",
    }


def test_an_entry_of_an_unknown_kind_is_passed_over_whole() -> None:
    strange = tarfile.TarInfo("strange")
    strange.type, strange.size = b"Q", 1000
    header = strange.tobuf() + bytes(1024)
    assert kinds(unpack(TarStream(LIMITS), header + tar({"a": b"a"}))) == {"strange": BadEntry, "a": b"a"}


def test_what_is_no_picture_in_a_zip() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.png", b"a")
        archive.mkdir("folder")
        archive.writestr("__MACOSX/._a.png", b"mac")
        for name, mode in (("link", 0o120777), ("disk", 0o060644)):
            entry = zipfile.ZipInfo(name)
            entry.create_system, entry.external_attr = 3, mode << 16
            archive.writestr(entry, b"/etc/passwd")
        archive.writestr("bz", b"x" * 100, zipfile.ZIP_BZIP2)
        archive.writestr("xz", b"x" * 100, zipfile.ZIP_LZMA)
    found = kinds(unpack(ZipBody(LIMITS), buffer.getvalue()))
    assert found == {"a.png": b"a", "link": BadEntry, "disk": BadEntry, "bz": BadEntry, "xz": BadEntry}


def test_an_encrypted_entry() -> None:
    data = bytearray(zipped({"a": b"a"}))
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + flags] |= 1
    (error,) = unpack(ZipBody(LIMITS), bytes(data)).values()
    assert isinstance(error, BadEntry)
    assert "encrypted" in str(error)


@pytest.mark.parametrize("make", [tar, zipped])
def test_a_large_entry_is_that_entrys_problem(make: Callable[[Mapping[str, bytes]], bytes]) -> None:
    archive: Archive = TarStream(LIMITS) if make is tar else ZipBody(LIMITS)
    found = kinds(unpack(archive, make({"a": bytes(10_001), "b": bytes(10_000)})))
    assert found == {"a": UploadTooLarge, "b": bytes(10_000)}


def test_a_zip_whose_entry_is_larger_than_it_says() -> None:
    """Ten megabytes that are said to be a hundred bytes: no more than those are ever decompressed."""
    data = bytearray(zipped({"a": bytes(10_000_000)}))
    for signature, size in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", data, data.index(signature) + size, 100)
    assert kinds(unpack(ZipBody(LIMITS), bytes(data))) == {"a": Corrupt}


def test_too_many_files() -> None:
    files = {str(number): b"" for number in range(21)}
    for archive, data in ((TarStream(LIMITS), tar(files)), (ZipBody(LIMITS), zipped(files))):
        with pytest.raises(TooManyFiles):
            unpack(archive, data)


def test_too_many_entries_that_are_no_files() -> None:
    with pytest.raises(TooManyFiles):
        unpack(TarStream(LIMITS), tar({}, more=[special("folder", tarfile.DIRTYPE)] * 1000))


def test_a_directory_that_would_fill_memory() -> None:
    data = zipped({f"{'folder/' * 10}{number}/": b"" for number in range(3_000)})
    with pytest.raises(MalformedUpload, match="directory"):
        unpack(ZipBody(LIMITS), data)


def test_too_many_bytes() -> None:
    for archive, data in (
        (TarStream(LIMITS), bytes(1_000_001)),
        (ZipBody(LIMITS), bytes(1_000_001)),
        (ZipBody(ArchiveLimits(50_000, 10_000, 20)), zipped({str(n): bytes(10_000) for n in range(6)})),
    ):
        with pytest.raises(UploadTooLarge):
            unpack(archive, data)


def test_a_tar_header_that_would_fill_memory() -> None:
    for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XGLTYPE):
        entry = tarfile.TarInfo("x")
        entry.type, entry.size = kind, 500_000
        with pytest.raises(MalformedUpload):
            list(TarStream(LIMITS).write(entry.tobuf()))


@pytest.mark.parametrize(
    "attributes", [b"8 path=a\n", b"x path=a\n", b"11 pathab\n\n", b"0 a=b\n", b"9999999999999999999 a=b\n", b"5\n"]
)
def test_a_tar_with_damaged_attributes(attributes: bytes) -> None:
    entry = tarfile.TarInfo("x")
    entry.type, entry.size = tarfile.XHDTYPE, len(attributes)
    with pytest.raises(MalformedUpload):
        list(TarStream(LIMITS).write(entry.tobuf() + attributes.ljust(512, b"\0")))


def test_sparse_files_are_not_made_up() -> None:
    entry = special("x", tarfile.GNUTYPE_SPARSE)
    with pytest.raises(MalformedUpload):
        list(TarStream(LIMITS).write(entry.tobuf()))
    sparse = tarfile.TarInfo("y")
    sparse.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.realsize": "99999999"}
    assert kinds(unpack(TarStream(LIMITS), tar({"a": b"a"}, more=[sparse]))) == {"y": BadEntry, "a": b"a"}


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"nothing of the kind" * 100, zipped(FILES)[:-30], bytes(1000)])
def test_what_is_no_archive(data: bytes) -> None:
    with pytest.raises(MalformedUpload):
        unpack(ZipBody(LIMITS), data)


@pytest.mark.parametrize("data", [b"", b"short", b"nothing of the kind" * 100, tar(FILES)[:700], tar(FILES)[:1500]])
def test_what_is_no_tar(data: bytes) -> None:
    with pytest.raises(MalformedUpload):
        unpack(TarStream(LIMITS), data)


def test_archives_of_nothing() -> None:
    for archive, data in ((TarStream(LIMITS), tar({})), (ZipBody(LIMITS), zipped({}))):
        with pytest.raises(MissingFile):
            unpack(archive, data)


def test_a_damaged_entry_of_a_zip_is_its_own_problem() -> None:
    data = bytearray(zipped({"a": random.Random(0).randbytes(1000), "b": b"b"}, zipfile.ZIP_STORED))
    data[100] ^= 1
    assert kinds(unpack(ZipBody(LIMITS), bytes(data))) == {"a": Corrupt, "b": b"b"}


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_whatever_is_done_to_an_archive(data: st.DataObject) -> None:
    """Nothing but the errors that are promised."""
    make, kind = data.draw(st.sampled_from([(tar, TarStream), (zipped, ZipBody)]))
    damaged = bytearray(make({"a": b"first", "b" * 120: bytes(range(256)), "c/d": b"x" * 600}))
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(MalformedUpload, UploadTooLarge, TooManyFiles, MissingFile):
        unpack(kind(LIMITS), bytes(damaged))


def test_an_archive_within_another() -> None:
    for data in (zipped(FILES), tar(FILES), gzip.compress(b"x"), b"BZh91AY", b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a"):
        with pytest.raises(BadEntry):
            refuse_archive(data)
    refuse_archive(b"\x89PNG\r\n\x1a\n" + zlib.compress(bytes(1000)))
