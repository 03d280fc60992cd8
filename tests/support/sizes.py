"""How much of each fault the chaos tests make, and the figures that they find."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Sizes:
    """How much of each.

    Attributes:
        callers: who ask at the same time while processes are killed and replaced.
        kills: of workers; as many are replaced.
        deaths: of Redis; each fault of Triton is made as often.
        fault_s: how long a network is bad.
        load_s: how long there are more callers than can be served.
        pictures: of which each shows whether its answer went to the wrong caller; `crowd` at the same time.
        rehearsals: of all runbooks, and not only of the quick ones.
    """

    callers: int
    kills: int
    deaths: int
    fault_s: float
    load_s: float
    pictures: int
    crowd: int
    rehearsals: bool


QUICK = Sizes(callers=64, kills=2, deaths=1, fault_s=4, load_s=4, pictures=2_000, crowd=64, rehearsals=False)
# What docs/promises.md states; an hour and a half on two cores.
FULL = Sizes(callers=500, kills=20, deaths=10, fault_s=60, load_s=60, pictures=100_000, crowd=256, rehearsals=True)
# By the environment and not by an option: what each of pytest's options is has to be known before conftest.py is read.
SIZES = {"": QUICK, "full": FULL}[os.environ.get("CHAOS", "")]


@dataclass
class Figures:
    """What was measured, for whoever runs `make chaos`; on a noisy machine no test asserts a time."""

    rows: list[str] = field(default_factory=list)

    def add(self, promise: int, what: str, measured: object) -> None:
        self.rows.append(f"| {promise} | {what} | {measured} |")


def spread(seconds: Sequence[float]) -> str:
    """Their number, median, 99th percentile and maximum."""
    if not seconds:
        return "none"
    median, late = np.percentile(seconds, (50, 99))
    return f"{len(seconds)}: median {median:.2f} s, p99 {late:.2f} s, at most {max(seconds):.2f} s"
