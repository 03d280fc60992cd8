"""From the items of an upload to a job in the store."""

import hashlib
import time
from collections.abc import AsyncIterator
from concurrent.futures import Executor

from clicv2.contract import Manifest
from clicv2.errors import ImageError
from service.cache.results import digest
from service.decoding import off_loop
from service.errors import KeyReused, ServiceError
from service.items import Item
from service.jobs.protocol import REUSED, Draft, Earlier, Source, Store
from service.jobs.runner import Runner
from service.schemas import Options

# A result without its heatmap and its embedding, or a problem; a name takes most of it.
_PLAIN_BYTES = 8192


class Intake:
    """Takes one upload.

    Args:
        deadline: instant of the monotonic clock by which all is there.
        earlier: the job that this upload's Idempotency-Key has made; then nothing is stored, only compared.
    """

    def __init__(
        self, store: Store, runner: Runner, pool: Executor, draft: Draft, deadline: float, earlier: Earlier | None
    ) -> None:
        self._store = store
        self._runner = runner
        self._pool = pool
        self._draft = draft
        self._deadline = deadline
        self._earlier = earlier
        self._content = hashlib.sha256()
        self._know(draft.options, draft.webhook or "")
        self.count = 0

    async def take(self, items: AsyncIterator[Item]) -> None:
        """Raises JobsFull, UnknownJob, DeadlineExceeded, and what the items raise as a whole."""
        async for item in items:
            try:
                data = await off_loop(self._pool, self._deadline - time.monotonic(), item.read)
            except (ServiceError, ImageError) as error:
                self._know(item.name, type(error).__name__)
                if self._earlier is None:
                    end = self._runner.failed(self._draft.request_id, self.count, item.name, error)
                    await self._store.refuse(self._draft.id, end)
            else:
                self._know(item.name, await digest(data))
                await self._add(Source(item.name, data))
            self.count += 1

    async def take_url(self, url: str) -> None:
        """Raises JobsFull, UnknownJob."""
        self._know(url, "url")
        await self._add(Source(url, url=url))
        self.count += 1

    async def submit(self, slot: str | None) -> str:
        """The id of the job that this upload has made, or of the one that its key had made. Raises KeyReused."""
        content = self._content.hexdigest()
        if self._earlier is None:
            return await self._store.submit(self._draft.id, slot, content)
        if self._earlier.digest != content:
            raise KeyReused(REUSED)
        return self._earlier.id

    async def _add(self, source: Source) -> None:
        if self._earlier is None:
            await self._store.add(self._draft.id, self.count, source)

    def _know(self, *parts: str) -> None:
        for part in parts:
            encoded = part.encode("utf-8", "surrogatepass")
            self._content.update(b"%d:%s" % (len(encoded), encoded))


def result_bytes(options: Options, manifest: Manifest) -> int:
    """The most that a picture's result takes, as JSON."""
    rows, columns = manifest.grid
    most = _PLAIN_BYTES + 16 * manifest.embedding_size * options.embedding
    if options.heatmap == "grid":
        most += 16 * rows * columns
    elif options.heatmap != "none":
        most += _PLAIN_BYTES + 9 * options.heatmap_size**2 // 2  # uncompressed pixels, in base64
    return most
