"""Which model versions Triton serves, over its repository API; needs --model-control-mode=explicit.

A version comes and goes without a lost request: Triton loads the new one, sends requests there, answers
what the old one has, and only then unloads it. A version that cannot be loaded leaves the old one served.
Triton forgets a pin when it is restarted, and then serves the newest version; a pin that must outlive
it is a setting of the workers, or a folder that is taken away.
"""

from collections.abc import Sequence

from service.triton_client import Entry, Kind, TritonClient, TritonError, with_versions

# TensorRT builds an engine while a model is loaded.
LOAD_S = 600.0
ASK_S = 5.0


class Registry:
    """See above. Every method raises TritonError."""

    def __init__(self, client: TritonClient) -> None:
        self._client = client

    async def list(self, model: str | None = None) -> Sequence[Entry]:
        """Every version that Triton has been told to load, with its state; models that it has not looked into."""
        return [entry for entry in await self._client.index(ASK_S) if model in (None, entry.model)]

    async def load(self, model: str, versions: Sequence[int] = ()) -> None:
        """Serve the newest version, or pin these. Returns when they are ready; then others are unloaded."""
        if not versions or not await self._loaded(model):
            await self._client.load(model, LOAD_S)
        config = await self._client.config(model, None, ASK_S)
        if config.versions != tuple(versions):  # a plain load does not undo a pin: nothing has changed on disk
            await self._client.load(model, LOAD_S, with_versions(config, versions))

    async def unload(self, model: str) -> None:
        """Serve no version of it."""
        await self._client.unload(model, ASK_S)

    async def reload(self, model: str) -> None:
        """Start a model whose process has died again, with the versions that it served."""
        config = await self._client.config(model, None, ASK_S)
        await self._client.unload(model, ASK_S)
        await self._client.load(model, LOAD_S, config.text if config.versions else None)

    async def _loaded(self, model: str) -> bool:
        try:
            await self._client.config(model, None, ASK_S)
        except TritonError as error:
            if error.kind is Kind.UNKNOWN:
                return False
            raise
        return True
