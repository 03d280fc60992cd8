"""The files in a tar, for whoever reads tars that others made.

`tarfile` takes a damaged header for the end, reads a header's own bytes into memory whatever their number, and fails in
many ways where a number makes no sense. Here all that is a ReadError, after what comes before the damage.
"""

import tarfile
from collections.abc import Callable, Iterator
from typing import BinaryIO, Literal, Self, TypeVar, cast

ResultT = TypeVar("ResultT")

# Of a long name and a few attributes; what claims more is made to fill memory.
MAX_PREFACE = 64 * 1024
_PREFACES = frozenset(
    {
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
    }
)
# No disk has more, and sums of such numbers can still be sought.
_MAX_SIZE = 1 << 60


def regular_files(stream: BinaryIO, mode: Literal["r:", "r|"]) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """The tar and each regular file in it, in its order; links, and files with holes, are left out.

    Args:
        mode: "r|" for a stream that cannot seek: a file's bytes are gone when the next one is asked for.

    Raises tarfile.TarError when it is damaged, and what reading the stream raises.
    """
    source = stream if mode == "r:" else cast("BinaryIO", _Ending(stream))
    with _or_damaged(lambda: tarfile.open(fileobj=source, mode=mode, tarinfo=_Header)) as tar:
        while (member := _or_damaged(tar.next)) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # it would keep every header, 1 kB each
            # A pax attribute may say another size than the header; one below zero would lead back, for ever.
            if not 0 <= member.size <= _MAX_SIZE:
                raise _damaged(f"a file of {member.size} bytes")
            if member.isreg() and not member.issparse():
                yield tar, member


class _Ending:
    """A stream that says once that it is over: `tarfile` would go on asking it for as many bytes as a header claims."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._over = False

    def read(self, size: int) -> bytes:
        if self._over:
            raise EOFError("it ends too soon")
        data = self._stream.read(size)
        self._over = not data
        return data


class _Header(tarfile.TarInfo):
    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if not buf.strip(b"\0"):  # the end, or as much of it as there is
                raise
            raise _damaged(error) from error
        if not 0 <= header.size <= (MAX_PREFACE if header.type in _PREFACES else _MAX_SIZE):
            raise _damaged(f"a header of {header.size} bytes")
        return header


def _or_damaged(step: Callable[[], ResultT]) -> ResultT:
    """RecursionError: of headers that announce headers, a thousand times over."""
    try:
        return step()
    except (ValueError, EOFError, OverflowError, RecursionError) as error:
        raise _damaged(error) from error


def _damaged(why: object) -> tarfile.ReadError:
    return tarfile.ReadError(f"damaged: {why}; what follows is lost")
