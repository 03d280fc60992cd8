"""Ask a CLICv2 complexity service how visually complex pictures are, and where.

`Client` waits in the calling thread, `AsyncClient` in asyncio; both have the same methods.
"""

from clicv2_client import errors
from clicv2_client.async_client import AsyncClient
from clicv2_client.calls import CompareOptions, HeatmapOptions, JobOptions, ScoreOptions
from clicv2_client.client import Client
from clicv2_client.errors import Clicv2Error, ConnectionFailed, InvalidAnswer, Problem, TimedOut, UnreadablePicture
from clicv2_client.jobs import AsyncJobs, Jobs
from clicv2_client.many import Scored
from clicv2_client.pictures import Picture
from clicv2_client.results import (
    Batch,
    BatchCounts,
    ComparedPicture,
    Comparison,
    Complexity,
    Difference,
    Figure,
    Grid,
    HeatmapPicture,
    ImageFacts,
    Job,
    JobCounts,
    JobEvent,
    JobItem,
    Model,
    ModelName,
    Rendering,
    Timings,
    Webhook,
)
from clicv2_client.retry import NEVER, Retry

__all__ = [
    "NEVER",
    "AsyncClient",
    "AsyncJobs",
    "Batch",
    "BatchCounts",
    "Clicv2Error",
    "Client",
    "CompareOptions",
    "ComparedPicture",
    "Comparison",
    "Complexity",
    "ConnectionFailed",
    "Difference",
    "Figure",
    "Grid",
    "HeatmapOptions",
    "HeatmapPicture",
    "ImageFacts",
    "InvalidAnswer",
    "Job",
    "JobCounts",
    "JobEvent",
    "JobItem",
    "JobOptions",
    "Jobs",
    "Model",
    "ModelName",
    "Picture",
    "Problem",
    "Rendering",
    "Retry",
    "ScoreOptions",
    "Scored",
    "TimedOut",
    "Timings",
    "UnreadablePicture",
    "Webhook",
    "errors",
]
