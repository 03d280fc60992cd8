"""Pictures out of a zip or a tar that nobody trusts; nothing touches a disk, and no name is used as a path.

What bounds them: bytes of the whole (as sent and as decompressed), bytes of an entry, entries, and bytes of a
directory or an entry's header. A tar is taken apart as it streams by; a zip has its directory at its end, so
that it is held in memory. Links, devices, encrypted entries and the like are items whose bytes nobody gets;
directories and what operating systems leave behind are no items at all.
"""

import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Protocol

from clicv2.errors import Corrupt
from service.errors import BadEntry, MalformedUpload, MissingFile, TooManyFiles, UploadTooLarge
from service.items import Item, as_name

_BLOCK = 512
# At most so much comes out of a decompressor at once.
_PIECE = 64 * 1024
# A long name and a few attributes; what claims more is made to fill memory.
_MAX_HEADER = 64 * 1024
# Parts that a gzip consists of: bgzip writes one for each 64 KiB, and an empty one costs 20 bytes.
_MAX_MEMBERS = 10_000
# Beside the pictures: directories, attributes, litter.
_ENTRIES_PER_FILE = 8
# Of an entry in the directory of a zip: 46 bytes and its name, attributes and comment.
_MAX_ZIP_ENTRY = 1024

_LITTER = frozenset({".ds_store", "thumbs.db", "desktop.ini"})
_ARCHIVES = {
    b"PK\x03\x04": "a zip",
    b"PK\x05\x06": "a zip",
    b"\x1f\x8b": "a gzip",
    b"BZh": "a bzip2",
    b"\xfd7zXZ\0": "an xz",
    b"7z\xbc\xaf\x27\x1c": "a 7z",
    b"Rar!": "a rar",
}
_TAR_MAGIC = slice(257, 262)


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """What bounds an archive.

    Attributes:
        max_bytes: of the whole, as sent and as decompressed.
        max_entry_bytes: of one picture.
        max_files: pictures in it.
    """

    max_bytes: int
    max_entry_bytes: int
    max_files: int

    @property
    def max_entries(self) -> int:
        return _ENTRIES_PER_FILE * (1 + self.max_files)


class Archive(Protocol):
    """Fed with `write`, ended with `finish`; both return the items that are complete by then.

    Both raise MalformedUpload, UploadTooLarge, TooManyFiles or MissingFile.
    """

    def write(self, chunk: bytes) -> Iterator[Item]: ...

    def finish(self) -> Iterator[Item]: ...


def refuse_archive(data: bytes) -> None:
    """Raises BadEntry for an archive where a picture should be."""
    kind = next((kind for magic, kind in _ARCHIVES.items() if data.startswith(magic)), None)
    if kind is None and data[_TAR_MAGIC] == b"ustar":
        kind = "a tar"
    if kind:
        raise BadEntry(
            f"this is {kind} and not a picture; send a zip, tar or tar.gz as the whole body, "
            "with its own Content-Type, and no archive within another"
        )


class Gunzip:
    """Takes the gzip off a stream, in pieces of at most 64 KiB. Raises MalformedUpload."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(wbits=31)
        self._members = 1

    def write(self, chunk: bytes) -> Iterator[bytes]:
        rest, more = chunk, False
        while rest or more:
            if self._inflate.eof:
                rest = rest.lstrip(b"\0")  # padding, as tapes have it
                if not rest:
                    return
                self._members += 1
                if self._members > _MAX_MEMBERS:
                    raise MalformedUpload(f"the gzip consists of more than {_MAX_MEMBERS} parts")
                self._inflate = zlib.decompressobj(wbits=31)
            try:
                piece = self._inflate.decompress(rest, _PIECE)
            except zlib.error as error:
                raise MalformedUpload(f"the gzip cannot be decompressed: {error}") from error
            rest = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail
            more = len(piece) == _PIECE and not self._inflate.eof  # it may have more without more input
            if piece:
                yield piece

    def finish(self) -> None:
        if not self._inflate.eof:
            raise MalformedUpload("the gzip ends before its end")


class TarStream:
    """A tar (ustar, GNU or pax), as decompressed; see `Archive`."""

    def __init__(self, limits: ArchiveLimits) -> None:
        self._limits = limits
        self._received = 0
        self._buffer = bytearray()
        self._entries = 0
        self._files = 0
        self._ended = False
        self._skip = 0  # bytes to throw away before anything else
        self._header: tarfile.TarInfo | None = None  # of the entry whose bytes come now
        self._long_name: bytes | None = None  # these come before the entry that they are of
        self._attributes: dict[bytes, bytes] = {}

    def write(self, chunk: bytes) -> Iterator[Item]:
        self._received += len(chunk)
        if self._received > self._limits.max_bytes:
            raise UploadTooLarge(self._limits.max_bytes)
        if self._ended:
            return
        self._buffer += chunk
        while not self._ended:
            skipped = min(self._skip, len(self._buffer))
            del self._buffer[:skipped]
            self._skip -= skipped
            needed = self._header.size if self._header else _BLOCK
            if self._skip or len(self._buffer) < needed:
                return
            taken = bytes(memoryview(self._buffer)[:needed])
            del self._buffer[:needed]
            item = self._content(self._header, taken) if self._header else self._entry(taken)
            if item:
                self._files += 1
                if self._files > self._limits.max_files:
                    raise TooManyFiles(self._limits.max_files)
                yield item

    def finish(self) -> Iterator[Item]:
        # Without its end mark it is whole if it ends where an entry does.
        if not self._ended and (self._buffer or self._skip or self._header or not self._entries):
            raise MalformedUpload("the tar ends in the middle of an entry")
        _check_files(self._files)
        return iter(())

    def _entry(self, block: bytes) -> Item | None:
        """Judge an entry by its header; the item if it has no bytes that anybody wants."""
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            self._ended = block == bytes(_BLOCK)
            if self._ended:
                return None
            raise MalformedUpload(f"the tar cannot be read: {error}") from error
        self._entries += 1
        if self._entries > self._limits.max_entries:
            raise TooManyFiles(self._limits.max_files)
        if header.type in _TAR_PREFACES:
            self._preface(header)
            return None
        name, sparse = self._take_prefaces(header)
        if header.size < 0:
            raise MalformedUpload("the tar cannot be read: an entry of a negative size")
        if header.type == tarfile.GNUTYPE_SPARSE:
            raise MalformedUpload("the tar cannot be read: it holds a sparse file")
        if header.isdir():
            return None
        if not header.isreg():
            # As everybody reads tar: these have no bytes, whatever size the header states.
            known = header.type in tarfile.SUPPORTED_TYPES
            self._skip = 0 if known else _padded(header.size)
            return Item.refused(name, BadEntry(f"{_TAR_KINDS.get(header.type, 'of an unknown kind')}, no file"))
        if _is_litter(name):
            self._skip = _padded(header.size)
            return None
        if sparse or header.size > self._limits.max_entry_bytes:
            self._skip = _padded(header.size)
            too_large = UploadTooLarge(self._limits.max_entry_bytes, header.size)
            return Item.refused(name, BadEntry("a sparse file") if sparse else too_large)
        header.name = name
        self._header = header
        return None

    def _preface(self, header: tarfile.TarInfo) -> None:
        """What says something of the next entry: read it, or skip what is of no use here."""
        wanted = header.type in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
        if not 0 <= header.size <= _MAX_HEADER:
            raise MalformedUpload(f"the tar has an entry with a header of {header.size} bytes")
        if wanted:
            self._header = header
        else:
            self._skip = _padded(header.size)

    def _content(self, header: tarfile.TarInfo, data: bytes) -> Item | None:
        self._header = None
        self._skip = _padded(header.size) - header.size
        if header.type == tarfile.GNUTYPE_LONGNAME:
            self._long_name = data.rstrip(b"\0")
        elif header.type in _TAR_PREFACES:
            self._attributes = _pax_records(data)
        else:
            return Item.of(header.name, data)
        return None

    def _take_prefaces(self, header: tarfile.TarInfo) -> tuple[str, bool]:
        """The entry's name, and whether it is sparse; its size is put right."""
        plain = header.name.encode("utf-8", "surrogateescape")
        name = self._attributes.get(b"path", self._long_name or plain)
        sparse = any(key.startswith(b"GNU.sparse") for key in self._attributes)
        size = self._attributes.get(b"size")
        if size is not None:
            if not size.isdigit() or len(size) > 20:
                raise MalformedUpload("the tar cannot be read: a size that is no number")
            header.size = int(size)
        self._long_name, self._attributes = None, {}
        return as_name(name), sparse


class ZipBody:
    """A zip; see `Archive`. Its items come with `finish`, which is CPU-bound, and are decompressed when read."""

    def __init__(self, limits: ArchiveLimits) -> None:
        self._limits = limits
        self._body = _Reluctant(max(2 * _MAX_HEADER, limits.max_entries * _MAX_ZIP_ENTRY))
        self._received = 0

    def write(self, chunk: bytes) -> Iterator[Item]:
        self._received += len(chunk)
        if self._received > self._limits.max_bytes:
            raise UploadTooLarge(self._limits.max_bytes)
        self._body.write(chunk)
        return iter(())

    def finish(self) -> Iterator[Item]:
        try:
            archive = zipfile.ZipFile(self._body)
        except MalformedUpload:
            raise
        except Exception as error:  # zipfile raises half a dozen unrelated types on damaged files
            raise MalformedUpload(f"the zip cannot be read: {error}") from error
        files = [info for info in archive.infolist() if not (info.is_dir() or _is_litter(info.filename))]
        if len(files) > self._limits.max_files:
            raise TooManyFiles(self._limits.max_files)
        _check_files(len(files))
        # What an entry states is the most that zipfile lets out of it.
        total = sum(info.file_size for info in files if info.file_size <= self._limits.max_entry_bytes)
        if total > self._limits.max_bytes:
            raise UploadTooLarge(self._limits.max_bytes, total)
        return iter([self._item(archive, info) for info in files])

    def _item(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Item:
        name = as_name(info.filename.encode("utf-8", "replace"))
        why = _why_not(info)
        if why:
            return Item.refused(name, BadEntry(why))
        if info.file_size > self._limits.max_entry_bytes:
            return Item.refused(name, UploadTooLarge(self._limits.max_entry_bytes, info.file_size))

        def read() -> bytes:
            try:
                with archive.open(info) as entry:
                    # In pieces: read whole, it would decompress all there is before it looks at what was stated.
                    data = b"".join(iter(lambda: entry.read(_PIECE), b""))
            except Exception as error:  # as above
                raise Corrupt(f"the zip's entry is damaged: {error}") from error
            if len(data) != info.file_size:
                raise Corrupt("the zip's entry is damaged: it is not as long as it says")
            return data

        return Item(name, read)


class _Reluctant(BytesIO):
    """Bytes of which nobody can have many at once: zipfile would read a directory whatever its size."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def read(self, size: int | None = -1, /) -> bytes:
        left = self.getbuffer().nbytes - self.tell()
        wanted = left if size is None or size < 0 else min(size, left)
        if wanted > self._most:
            raise MalformedUpload(f"the zip's directory has more than {self._most} bytes")
        return super().read(wanted)


_TAR_PREFACES = frozenset(
    {
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
    }
)
_TAR_KINDS = {
    tarfile.LNKTYPE: "a link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
}


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _pax_records(data: bytes) -> dict[bytes, bytes]:
    """ "LENGTH KEY=VALUE\\n" again and again (POSIX.1-2001, pax). Raises MalformedUpload."""
    records: dict[bytes, bytes] = {}
    at = 0
    while at < len(data) and data[at]:
        digits, space, _ = data[at : at + 20].partition(b" ")
        end = at + int(digits) if space and digits.isdigit() else at
        key, equals, value = data[at + len(digits) + 1 : end].partition(b"=")
        if not (at < end <= len(data) and equals and value.endswith(b"\n")):
            raise MalformedUpload("the tar cannot be read: an attribute is damaged")
        records[key] = value[:-1]
        at = end
    return records


def _why_not(info: zipfile.ZipInfo) -> str | None:
    """Why an entry of a zip cannot be a picture; None if it can."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        return "a symbolic link, no file" if kind == stat.S_IFLNK else "a device, no file"
    if info.flag_bits & 0x41:
        return "encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "compressed by another method than deflate"
    return None


def _is_litter(name: str) -> bool:
    """What an operating system put there and nobody meant to send."""
    parts: Sequence[str] = name.lower().split("/")
    return parts[-1] in _LITTER or parts[-1].startswith("._") or "__macosx" in parts


def _check_files(count: int) -> None:
    if not count:
        raise MissingFile("the archive holds no files")
