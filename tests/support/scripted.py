"""A backend that misbehaves as the pictures ask it to."""

import asyncio

import numpy as np
import tiny_model

from clicv2.contract import Manifest
from clicv2.imaging import Pixels
from service.backend.protocol import BackendDown, BackendError
from service.prediction import Predictions


class ScriptedBackend:
    """Scores a picture by its first byte, and misbehaves as that byte says; remembers its calls."""

    RAISES, NAN, BAD_SHAPE, IS_DOWN = 251, 252, 253, 254

    def __init__(self, manifest: Manifest, slots: int = 1, call_s: float = 0.0) -> None:
        self.manifest = manifest
        self.slots = slots
        self.call_s = call_s
        self.calls: list[list[int]] = []
        self.healthy = True
        self.events: dict[str, int] = {}

    async def heal(self) -> None:
        while not self.healthy:  # noqa: ASYNC110  # a test sets it, not an event
            await asyncio.sleep(0.01)

    async def infer(self, images: Pixels) -> Predictions:
        marks = [int(image.flat[0]) for image in images]
        self.calls.append(marks)
        await asyncio.sleep(self.call_s)
        if self.IS_DOWN in marks:
            raise BackendDown("no power")
        if self.RAISES in marks:
            raise BackendError("indigestible")
        size = len(marks) - (self.BAD_SHAPE in marks)
        score = np.array([np.nan if mark == self.NAN else mark / 250 for mark in marks][:size], np.float32)
        return Predictions(
            self.manifest.version,
            score,
            np.zeros(size, np.float32),
            np.zeros((size, *self.manifest.grid), np.float32),
            np.zeros((size, self.manifest.embedding_size), np.float32),
        )

    async def close(self) -> None:
        pass


def pixels(mark: int) -> Pixels:
    return np.full((tiny_model.SIDE, tiny_model.SIDE, 3), mark, np.uint8)
