"""The parts named `file` of a multipart/form-data body, taken as it streams by; nothing touches a disk."""

from collections.abc import Iterator

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from service.errors import MalformedUpload, MissingFile, UploadTooLarge
from service.items import Item, as_name

FIELD = "file"
# What the other parts, the boundaries and the headers may add to the picture.
OVERHEAD_BYTES = 64 * 1024


class _Form:
    """Feed it the body with `write`; it tells its heirs of the parts."""

    def __init__(self, boundary: bytes) -> None:
        self._complete = False
        self._header_name = b""
        self._header_value = b""
        self._disposition = b""
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._on_part_begin,
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_part_data": self._on_part_data,
                    "on_part_end": self._on_part_end,
                    "on_end": self._on_end,
                },
            )
        except FormParserError as error:
            raise MalformedUpload(f"the multipart boundary is invalid: {error}") from error

    def _feed(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise MalformedUpload(f"the multipart body cannot be parsed: {error}") from error

    def _check_complete(self) -> None:
        if not self._complete:
            raise MalformedUpload("the multipart body ends before its closing boundary")

    def _on_part_begin(self) -> None:
        self._disposition = b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition.decode("latin-1"))
        self._part_begins(options.get(b"name", b"").decode("utf-8", "replace"), options.get(b"filename", b""))

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._part_goes_on(memoryview(data)[start:end])

    def _on_part_end(self) -> None:
        self._part_ends()

    def _on_end(self) -> None:
        self._complete = True

    def _part_begins(self, field: str, file_name: bytes) -> None:
        raise NotImplementedError

    def _part_goes_on(self, data: memoryview) -> None:
        raise NotImplementedError

    def _part_ends(self) -> None:
        raise NotImplementedError


class FilePart(_Form):
    """A form with one picture: feed it the body with `write`, then take the picture with `finish`.

    Both raise MalformedUpload, MissingFile or UploadTooLarge, as soon as it is certain.
    """

    def __init__(self, boundary: bytes, limit: int) -> None:
        super().__init__(boundary)
        self._limit = limit
        self._received = 0
        self._picture: bytearray | None = None
        self._names: list[str] = []
        self._wanted = False  # the part that is being read is the picture

    def write(self, chunk: bytes) -> None:
        self._received += len(chunk)
        if self._received > self._limit + OVERHEAD_BYTES:
            raise UploadTooLarge(self._limit)
        self._feed(chunk)

    def finish(self) -> bytes:
        self._check_complete()
        if self._picture is None:
            found = ", ".join(map(repr, self._names)) or "none"
            raise MissingFile(f"the picture must be the part named {FIELD!r}; parts found: {found}")
        return bytes(self._picture)

    def _part_begins(self, field: str, file_name: bytes) -> None:  # noqa: ARG002  # its name says nothing
        self._names.append(field)
        self._wanted = field == FIELD
        if self._wanted:
            if self._picture is not None:
                raise MissingFile(f"one picture a request: there is more than one part named {FIELD!r}")
            self._picture = bytearray()

    def _part_goes_on(self, data: memoryview) -> None:
        if not self._wanted or self._picture is None:
            return
        self._picture += data
        if len(self._picture) > self._limit:
            raise UploadTooLarge(self._limit)

    def _part_ends(self) -> None:
        pass


class FileParts(_Form):
    """A form with any number of pictures; each is an item as soon as it is complete.

    A part that is over the limit is thrown away as it comes; its item says so. Both methods raise
    MalformedUpload; `finish` raises MissingFile when there was no picture at all.
    """

    def __init__(self, boundary: bytes, limit: int) -> None:
        super().__init__(boundary)
        self._limit = limit
        self._items: list[Item] = []  # complete, and not taken yet
        self._found = False
        self._names: list[str] = []
        self._name = ""
        self._picture: bytearray | None = None  # None: the part that is being read is no picture
        self._size = 0
        self._others = 0

    def write(self, chunk: bytes) -> Iterator[Item]:
        self._feed(chunk)
        yield from self._items
        self._items.clear()

    def finish(self) -> Iterator[Item]:
        self._check_complete()
        if not self._found:
            found = ", ".join(map(repr, self._names)) or "none"
            raise MissingFile(f"each picture must be a part named {FIELD!r}; parts found: {found}")
        return iter(())

    def _part_begins(self, field: str, file_name: bytes) -> None:
        self._picture = None
        self._size = 0
        if field == FIELD:
            self._found = True
            self._name = as_name(file_name)
            self._picture = bytearray()
        elif len(self._names) < 10:
            self._names.append(field)

    def _part_goes_on(self, data: memoryview) -> None:
        self._size += len(data)
        if self._picture is None:
            self._others += len(data)
            if self._others > OVERHEAD_BYTES:
                raise UploadTooLarge(OVERHEAD_BYTES)
        elif self._size <= self._limit:
            self._picture += data
        else:
            self._picture.clear()

    def _part_ends(self) -> None:
        if self._picture is None:
            return
        if self._size > self._limit:
            self._items.append(Item.refused(self._name, UploadTooLarge(self._limit, self._size)))
        else:
            self._items.append(Item.of(self._name, bytes(self._picture)))
        self._picture = None
