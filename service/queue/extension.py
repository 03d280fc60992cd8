"""Waiting for a job whose deadline may be put off: somebody joins who has more time than who asked first."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

from service.errors import ServiceError
from service.queue.protocol import Job, Outcome, Queue

# How long before the deadline it is put off: a queue between processes has to hear of it in time. Not earlier and not
# for each who joins, because to Redis it means to send the pixels once more.
_AHEAD_S = 0.1


async def extended_result(
    queue: Queue, job: Job, wanted_until: Callable[[], float], clock: Callable[[], float]
) -> Outcome:
    """`queue.result` of a job that is admitted, which expires only when nobody wants it any more.

    Admits the job again with the later deadline: the queue joins the two, so that it keeps its place and is done
    once. Cancels the job when cancelled.
    """
    held = [job]  # admitted by us: two for the moment in which one deadline replaces another
    waiting = asyncio.create_task(queue.result(job))
    try:
        while True:
            await asyncio.wait({waiting}, timeout=max(0.0, job.deadline - _AHEAD_S - clock()))
            until = wanted_until()
            if waiting.done() or until <= job.deadline:
                break
            job = replace(job, deadline=until)
            held.append(job)
            try:
                await queue.admit(job)
            except ServiceError:  # the deadline stays as it was
                break
            if waiting.done():
                break
            waiting.cancel()
            await queue.cancel(held.pop(0))
            waiting = asyncio.create_task(queue.result(job))
        return await waiting
    finally:
        waiting.cancel()
        for one in held:
            await queue.cancel(one)  # nothing happens to one that has its outcome
