import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from pictures import encode, noise

from clicv2 import imaging
from clicv2.headers import Limits
from clicv2.spec import PreprocessSpec
from service.decoding import decode, off_loop
from service.errors import DeadlineExceeded

pytestmark = pytest.mark.anyio


async def test_the_event_loop_stays_free() -> None:
    with ThreadPoolExecutor(1) as pool:
        assert await off_loop(pool, 5, threading.current_thread) is not threading.current_thread()


async def test_errors_come_through() -> None:
    with ThreadPoolExecutor(1) as pool, pytest.raises(ValueError, match="invalid literal"):
        await off_loop(pool, 5, int, "x")


async def test_the_deadline_ends_the_wait_and_what_has_not_begun_never_begins() -> None:
    begun: list[int] = []
    with ThreadPoolExecutor(1) as pool:
        occupying = asyncio.create_task(off_loop(pool, 5, time.sleep, 0.2))
        await asyncio.sleep(0)
        with pytest.raises(DeadlineExceeded):
            await off_loop(pool, 0.05, begun.append, 1)
        with pytest.raises(DeadlineExceeded):
            await off_loop(pool, 0.0, begun.append, 2)
        await occupying
    assert begun == []


async def test_who_is_cancelled_never_begins() -> None:
    begun: list[int] = []
    with ThreadPoolExecutor(1) as pool:
        occupying = asyncio.create_task(off_loop(pool, 5, time.sleep, 0.1))
        waiting = asyncio.create_task(off_loop(pool, 5, begun.append, 1))
        await asyncio.sleep(0.02)
        waiting.cancel()
        await occupying
    assert begun == []


def test_the_model_sees_what_training_saw() -> None:
    data, spec = encode(noise(300, 200), "JPEG"), PreprocessSpec()
    decoded = decode(data, spec, Limits(), preview_side=60)
    expected = imaging.to_model_input(imaging.decode(data, spec).image, spec)
    np.testing.assert_array_equal(decoded.pixels, expected)
    assert decoded.size == (300, 200)
    assert decoded.preview is not None
    assert decoded.preview.size == (60, 40)
    assert decode(data, spec, Limits()).preview is None
