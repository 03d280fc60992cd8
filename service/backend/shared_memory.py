"""Pictures for a Triton on the same machine, through memory that both map instead of over the wire.

    region   a file in /dev/shm for one call at a time, registered in Triton under its own name
    lock     on that file, for as long as the process that made it lives: a region without it is nobody's. Process
             ids would not tell, for containers that share /dev/shm have a process 1 each

What Triton may still read is never written again: a region goes into the next call only if Triton has answered the
one before, or refused it at the door. After any other end (too late, cut off, an error) it is dropped: its name
goes, its memory stays Triton's until that lets go, and Triton refuses to as long as a request uses it (from 24.09 on;
one before that would crash).
Only pictures go this way: answers are 2 kB each, which cost the wire nothing.
"""

import asyncio
import fcntl
import mmap
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

import numpy as np

from clicv2.imaging import Pixels
from service.triton_client import Kind, Reply, Shared, TritonClient, TritonError

FOLDER = Path("/dev/shm")  # noqa: S108  # where Linux has POSIX shared memory; every name in it is exclusive
PREFIX = "clicv2-pictures-"

# To let go of regions; whoever dies or hangs up without that is tidied up after.
_GOODBYE_S = 0.5
_LOOK_EVERY_S = 0.02


class NotShared(Exception):
    """Triton does not read this process's memory; the wire remains."""


def new_name() -> str:
    """By chance, so that nobody has had a region of this name; the process is for whoever looks into the folder."""
    return f"{PREFIX}{os.getpid()}-{token_hex(16)}"


class Region:
    """A piece of shared memory that this process made.

    Attributes:
        name: in the folder and in Triton.
        size: bytes.
    """

    def __init__(self, folder: Path, name: str, size: int) -> None:
        """Raises OSError, as when there is no room."""
        self.name = name
        self.size = size
        self._path = folder / name
        self._file = _create(self._path)
        try:
            # Memory that is missing at the first write would kill the process instead.
            os.posix_fallocate(self._file, 0, size)
            self._memory = mmap.mmap(self._file, size)
        except OSError:
            self._path.unlink(missing_ok=True)
            os.close(self._file)
            raise

    def write(self, images: Pixels) -> None:
        """uint8 [B, H, W, 3], to its beginning."""
        self._memory[: images.nbytes] = np.ascontiguousarray(images).reshape(-1).data

    def drop(self) -> None:
        """Take its name away; whoever has mapped it keeps the memory."""
        self._path.unlink(missing_ok=True)
        self._memory.close()
        os.close(self._file)


class SharedMemory:
    """One connection's regions, as many as it has calls on their way at once."""

    def __init__(self, client: TritonClient, *, folder: Path = FOLDER, name: Callable[[], str] = new_name) -> None:
        self._client = client
        self._folder = folder
        self._name = name
        self._regions: set[Region] = set()
        self._idle: list[Region] = []

    async def infer(self, model: str, version: int | None, images: Pixels, timeout_s: float) -> Reply:
        """`TritonClient.infer` for what it would send by the wire. Raises NotShared, and TritonError as that does."""
        region = await self._take(images.nbytes, timeout_s)
        try:
            return await self._infer_from(region, model, version, images, timeout_s)
        except TritonError as error:
            if error.kind is not Kind.FORGOTTEN:
                raise
        # Triton was started anew, and the connection has healed unnoticed.
        self._drop_idle()
        try:
            return await self._infer_from(await self._make(images.nbytes, timeout_s), model, version, images, timeout_s)
        except TritonError as error:
            if error.kind is Kind.FORGOTTEN:
                raise NotShared("what was registered is not known: several servers answer to this name") from None
            raise

    def drop(self) -> None:
        """Take all names away. Calls on their way may still come to their end."""
        for region in self._regions:
            region.drop()
        self._regions.clear()
        self._idle.clear()

    async def close(self) -> None:
        """`drop`, and let Triton let go of what it no longer uses."""
        names = [region.name for region in self._regions]
        self.drop()
        with suppress(TimeoutError):
            async with asyncio.timeout(_GOODBYE_S):
                await asyncio.gather(*map(self._let_go, names))

    async def _let_go(self, name: str) -> None:
        """Triton holds a request, and so its region, for a moment longer than the answer takes to be here."""
        while True:
            try:
                return await self._client.unregister(name, _GOODBYE_S)
            except TritonError as error:
                if error.kind is not Kind.INTERNAL:
                    return None
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _infer_from(
        self, region: Region, model: str, version: int | None, images: Pixels, timeout_s: float
    ) -> Reply:
        let_go = False
        try:
            region.write(images)
            reply = await self._client.infer(model, version, Shared(region.name, images.shape), timeout_s)
            let_go = True
        except TritonError as error:
            let_go = error.kind is Kind.FULL
            raise
        finally:
            if region in self._regions:  # else dropped with all the others meanwhile
                if let_go:
                    self._idle.append(region)
                else:
                    self._discard(region)
        return reply

    async def _take(self, size: int, timeout_s: float) -> Region:
        while self._idle:
            region = self._idle.pop()
            if region.size >= size:
                return region
            self._discard(region)
        return await self._make(size, timeout_s)

    async def _make(self, size: int, timeout_s: float) -> Region:
        """A region that Triton knows. Raises NotShared, TritonError."""
        capacity = 1 << (size - 1).bit_length()  # the next power of two: few steps from small batches to large ones
        try:
            region = Region(self._folder, self._name(), capacity)
        except OSError as error:
            raise NotShared(f"no shared memory: {error}") from error
        self._regions.add(region)
        try:
            await self._client.register(region.name, region.size, timeout_s)
            await self._tidy_up(timeout_s)
        except BaseException as error:
            self._discard(region)
            if isinstance(error, TritonError) and error.kind in (Kind.INTERNAL, Kind.BAD_REQUEST):
                raise NotShared(
                    f"Triton cannot open what this process has in {self._folder}: it runs on another machine, in "
                    "another container or as another user"
                ) from error
            raise
        return region

    async def _tidy_up(self, timeout_s: float) -> None:
        """Clear away what nobody holds: of processes that died, and of calls whose end was not seen.

        Only once Triton has opened a region of ours: in another folder than Triton's all names would be missing.
        """
        _clear_away(self._folder)
        for name in await self._client.regions(timeout_s):
            if name.startswith(PREFIX) and not (self._folder / name).exists():
                with suppress(TritonError):  # a request still uses it; the next region's turn
                    await self._client.unregister(name, timeout_s)

    def _drop_idle(self) -> None:
        while self._idle:
            self._discard(self._idle.pop())

    def _discard(self, region: Region) -> None:
        if region in self._regions:
            self._regions.remove(region)
            region.drop()


def _create(path: Path) -> int:
    """A new file, locked."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file).st_nlink:
            return file
        os.close(file)  # somebody who tidied up saw it before it was locked


def _clear_away(folder: Path) -> None:
    """Unlink every region whose process is gone."""
    for path in folder.glob(f"{PREFIX}*"):
        with suppress(OSError):  # gone, or not ours to open
            file = os.open(path, os.O_RDWR)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)  # while locked, so that nobody makes it his meanwhile
            finally:
                os.close(file)
