"""Ask a CLICv2 complexity service how visually complex pictures are, and where.

`Client` waits in the calling thread, `AsyncClient` in asyncio; both have the same methods.
"""

from clicv2_client import errors
from clicv2_client.async_client import AsyncClient
from clicv2_client.calls import CompareOptions, HeatmapOptions, ScoreOptions
from clicv2_client.client import Client
from clicv2_client.errors import Clicv2Error, ConnectionFailed, InvalidAnswer, Problem, TimedOut, UnreadablePicture
from clicv2_client.many import Scored
from clicv2_client.pictures import Picture
from clicv2_client.results import (
    Batch,
    Comparison,
    Complexity,
    Difference,
    Grid,
    HeatmapPicture,
    Model,
    Rendering,
)
from clicv2_client.retry import NEVER, Retry

__all__ = [
    "NEVER",
    "AsyncClient",
    "Batch",
    "Clicv2Error",
    "Client",
    "CompareOptions",
    "Comparison",
    "Complexity",
    "ConnectionFailed",
    "Difference",
    "Grid",
    "HeatmapOptions",
    "HeatmapPicture",
    "InvalidAnswer",
    "Model",
    "Picture",
    "Problem",
    "Rendering",
    "Retry",
    "ScoreOptions",
    "Scored",
    "TimedOut",
    "UnreadablePicture",
    "errors",
]
