"""What a worker asks of whatever runs the model."""

from collections.abc import Mapping
from typing import Protocol

from clicv2.contract import Manifest
from clicv2.imaging import Pixels
from service.prediction import Predictions


class BackendError(Exception):
    """A call failed; with fewer or other pictures it might not."""


class BackendDown(BackendError):
    """No call can succeed now, whatever the pictures."""


class Backend(Protocol):
    """A model, opened and warm.

    Attributes:
        manifest: what the model says of itself; its preprocessing has been checked against the model file.
        slots: how many calls of `infer` run at once.
        healthy: False while calls are known to be pointless.
        events: how often what has happened so far, by few names; for /metrics.
    """

    @property
    def manifest(self) -> Manifest: ...

    @property
    def slots(self) -> int: ...

    @property
    def healthy(self) -> bool: ...

    @property
    def events(self) -> Mapping[str, int]: ...

    async def heal(self) -> None:
        """Return at once when healthy, else as soon as it is so again; finding out is its own business."""
        ...

    async def infer(self, images: Pixels) -> Predictions:
        """Run the model on uint8 [B, H, W, 3]. Raises BackendError; BackendDown if trying again is pointless."""
        ...

    async def close(self) -> None: ...
