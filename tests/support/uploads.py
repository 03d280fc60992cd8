"""Pictures that the scripted backend knows, and bodies that hold many."""

import io
import tarfile
import zipfile
from collections.abc import Mapping

import numpy as np
from pictures import encode

TAR, ZIP, GZIP = "application/x-tar", "application/zip", "application/gzip"


def flat(mark: int) -> bytes:
    """The scripted backend scores it mark / 250."""
    return encode(np.full((64, 64, 3), mark, np.uint8), "PNG")


def form(files: Mapping[str, bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("file", (name, data)) for name, data in files.items()]


def zipped(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def slug(document: Mapping[str, object]) -> str:
    """The last part of a problem's type."""
    return str(document["type"]).removeprefix("urn:clicv2:problem:")
