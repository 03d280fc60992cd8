"""The part named `file` of a multipart/form-data body, taken as it streams by; nothing touches a disk."""

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from service.errors import MalformedUpload, MissingFile, UploadTooLarge

FIELD = "file"
# What the other parts, the boundaries and the headers may add to the picture.
OVERHEAD_BYTES = 64 * 1024


class FilePart:
    """Feed it the body with `write`, then take the picture with `finish`.

    Both raise MalformedUpload, MissingFile or UploadTooLarge, as soon as it is certain.
    """

    def __init__(self, boundary: bytes, limit: int) -> None:
        self._limit = limit
        self._received = 0
        self._picture: bytearray | None = None
        self._names: list[str] = []
        self._wanted = False  # the part that is being read is the picture
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
                    "on_end": self._on_end,
                },
            )
        except FormParserError as error:
            raise MalformedUpload(f"the multipart boundary is invalid: {error}") from error

    def write(self, chunk: bytes) -> None:
        self._received += len(chunk)
        if self._received > self._limit + OVERHEAD_BYTES:
            raise UploadTooLarge(self._limit)
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise MalformedUpload(f"the multipart body cannot be parsed: {error}") from error

    def finish(self) -> bytes:
        if not self._complete:
            raise MalformedUpload("the multipart body ends before its closing boundary")
        if self._picture is None:
            found = ", ".join(map(repr, self._names)) or "none"
            raise MissingFile(f"the picture must be the part named {FIELD!r}; parts found: {found}")
        return bytes(self._picture)

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
        name = options.get(b"name", b"").decode("utf-8", "replace")
        self._names.append(name)
        self._wanted = name == FIELD
        if self._wanted:
            if self._picture is not None:
                raise MissingFile(f"one picture a request: there is more than one part named {FIELD!r}")
            self._picture = bytearray()

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if not self._wanted or self._picture is None:
            return
        self._picture += memoryview(data)[start:end]
        if len(self._picture) > self._limit:
            raise UploadTooLarge(self._limit)

    def _on_end(self) -> None:
        self._complete = True
