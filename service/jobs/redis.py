"""Jobs in Redis: any gateway takes up what another one has left.

Each step is one script (`scripts/`), so Redis does it whole or not at all. Pictures do not pass through scripts,
where they would hold up everybody for longer: an item is counted first, and then its bytes are set.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, cast

import orjson

from service.errors import JobsFull, JobShareTaken, JobTooLarge, KeyReused, UnknownJob
from service.jobs import scripts
from service.jobs.keys import Keys
from service.jobs.protocol import (
    GRACE_S,
    ITEM_BYTES,
    JOB_BYTES,
    REUSED,
    Draft,
    Earlier,
    End,
    Event,
    Facts,
    Hook,
    HookState,
    JobLimits,
    Lease,
    LeaseLost,
    Page,
    Renewed,
    Source,
    Status,
    Taken,
)
from service.queue.link import Fields, Link

# What the slowest network and disk that anybody would use let through.
_BYTES_PER_S = 10e6
_EVENTS_AT_ONCE = 200


class RedisStore:
    """See `service.jobs.protocol.Store`; one for each gateway.

    Args:
        url: see `service.queue.connections.Pool`.
        prefix: the queue's.
        timeout_s: after which Redis is out of reach; what is large gets a second more for each 10 MB.
    """

    lasting = True

    def __init__(self, url: str, limits: JobLimits, *, prefix: str = "clicv2", timeout_s: float = 0.2) -> None:
        self._keys = Keys(prefix)
        self._link = _Link(url, timeout_s, keys=self._keys.for_scripts, name="what holds the jobs")
        self._limits = limits
        # Which of the two holds for a job, its script finds by its owner.
        self._bytes_limits = (limits.held_bytes, limits.most(limits.held_bytes, "somebody"))

    async def begin(self, draft: Draft, slot: str | None) -> Earlier | None:
        reply = await self._link.run(
            "begin",
            draft.id,
            draft.owner,
            draft.options,
            draft.request_id,
            draft.webhook or "",
            draft.result_bytes,
            slot or "",
            _ms(self._limits.ttl_s),
            _ms(self._limits.upload_s + GRACE_S),
            self._limits.open_at_once,
            self._limits.most(self._limits.open_at_once, draft.owner),
            JOB_BYTES,
            *self._bytes_limits,
        )
        status, *found = cast("list[bytes]", reply)
        if status == b"known":
            return Earlier(found[0].decode(), found[1].decode())
        _check(reply)
        return None

    async def add(self, job_id: str, place: int, source: Source) -> None:
        size = len(source.data or b"")
        item = orjson.dumps({"name": source.name, "url": source.url} if source.url else {"name": source.name})
        _check(await self._link.run("add", job_id, place, item, size + ITEM_BYTES, *self._bytes_limits))
        if source.data is not None:
            expire_s = self._limits.upload_s + self._limits.ttl_s + 2 * GRACE_S
            await self._link.set_large(self._keys.picture(job_id, place), source.data, _ms(expire_s))

    async def refuse(self, job_id: str, end: End) -> None:
        _check(await self._link.run("refuse", job_id, end.result, end.summary, ITEM_BYTES, *self._bytes_limits))

    async def submit(self, job_id: str, slot: str | None, digest: str) -> str:
        status, *found = cast("list[bytes]", await self._link.run("submit", job_id, slot or "", digest))
        if status == b"unknown":
            raise UnknownJob
        if status == b"reused":
            raise KeyReused(REUSED)
        return found[0].decode()

    async def forget(self, job_id: str, owner: str) -> None:
        if not await self._link.run("forget", job_id, owner):
            raise UnknownJob

    async def look(self, job_id: str, owner: str, offset: int = 0, limit: int = 0) -> Page:
        record, driven_until, expiry, now, results = await self._link.look(self._keys, job_id, offset, limit)
        if record.get(b"owner") != owner.encode() or record.get(b"state") == b"draft" or expiry is None:
            raise UnknownJob
        return Page(_facts(job_id, record, driven_until, expiry, now), results)

    async def events(self, job_id: str, owner: str, after: int, wait_s: float) -> Sequence[Event]:
        await self.look(job_id, owner)
        entries = await self._link.read(self._keys.events(job_id), f"{after}-0".encode(), _EVENTS_AT_ONCE, wait_s)
        if not entries:
            await self.look(job_id, owner)  # it may have been forgotten meanwhile
        return [_event(entry, fields) for entry, fields in entries]

    async def claim(self) -> Lease | None:
        reply = await self._link.run("claim", _ms(self._limits.lease_s))
        if reply is None:
            return None
        job_id, fence, options, request_id, abandoned, flat = cast(
            "tuple[bytes, int, bytes, bytes, int, list[bytes]]", reply
        )
        left = [(int(place), int(attempts)) for place, attempts in zip(flat[::2], flat[1::2], strict=True)]
        return Lease(job_id.decode(), fence, options.decode(), request_id.decode(), sorted(left), bool(abandoned))

    async def renew(self, lease: Lease) -> Renewed:
        reply = await self._link.run("renew", lease.job_id, lease.fence, _ms(self._limits.lease_s))
        held, waiting = cast("tuple[int, int]", reply)
        return Renewed(bool(held), waiting)

    async def take(self, lease: Lease, place: int) -> Taken | None:
        status, *found = cast(
            "tuple[bytes, int, bytes]", await self._link.run("take", lease.job_id, lease.fence, place)
        )
        if status == b"lost":
            raise LeaseLost
        if status == b"done":
            return None
        attempt, item = cast("tuple[int, bytes]", tuple(found))
        stored = orjson.loads(item)
        if "url" in stored:
            return Taken(Source(stored["name"], url=stored["url"]), attempt)
        data = await self._link.get_large(self._keys.picture(lease.job_id, place), int(stored["counted"]))
        # None: it was deleted by hand, or this job in between. As no bytes it is an item's error.
        return Taken(Source(stored["name"], data or b""), attempt)

    async def finish(self, lease: Lease, place: int, end: End) -> None:
        good = int(end.scored)
        if not await self._link.run(
            "finish", lease.job_id, lease.fence, place, good, end.result, end.summary, ITEM_BYTES
        ):
            raise LeaseLost

    async def release(self, lease: Lease, under_way: Sequence[int]) -> None:
        await self._link.run("release", lease.job_id, lease.fence, *under_way)

    async def claim_hook(self, for_s: float) -> Hook | None:
        reply = await self._link.run("claim_hook", _ms(for_s))
        if reply is None:
            return None
        job_id, attempt = cast("tuple[bytes, int]", reply)
        record, driven_until, expiry, now, _ = await self._link.look(self._keys, job_id.decode(), 0, 0)
        if not record or expiry is None:
            return None
        facts = _facts(job_id.decode(), record, driven_until, expiry, now)
        return Hook(facts, record[b"webhook"].decode(), attempt)

    async def settle_hook(self, hook: Hook, state: HookState, detail: str = "", again_in_s: float = 0.0) -> None:
        await self._link.run("settle_hook", hook.facts.id, hook.attempt, state, detail, _ms(again_in_s))

    async def held_bytes(self) -> int:
        return cast("int", await self._link.run("held"))

    async def close(self) -> None:
        await self._link.close()


_Look = tuple[Mapping[bytes, bytes], float | None, float | None, float, Sequence[bytes]]


class _Link(Link):
    """The connection, with what jobs need beyond the queue: scripts of their own, and values of megabytes."""

    def __init__(self, url: str, timeout_s: float, *, keys: tuple[str, ...], name: str) -> None:
        super().__init__(url, timeout_s, keys=keys, name=name)
        self._scripts = {each: self._redis.register_script(scripts.source(each)) for each in scripts.NAMES}

    async def set_large(self, key: str, value: bytes, expire_ms: int) -> None:
        """Raises Unavailable."""
        async with self._answering(self._timeout_s + len(value) / _BYTES_PER_S), self._turns:
            await self._redis.set(key, value, px=expire_ms)

    async def get_large(self, key: str, size: int) -> bytes | None:
        """A value of about that size. Raises Unavailable."""
        async with self._answering(self._timeout_s + size / _BYTES_PER_S), self._turns:
            return cast("bytes | None", await self._redis.get(key))

    async def look(self, keys: Keys, job_id: str, offset: int, limit: int) -> _Look:
        """A job's record, its scores in `open` and `expiry`, Redis's clock in ms, results. Raises Unavailable."""
        # With maps 0.3 MB each; nobody knows before how many there are.
        patience_s = limit * 0.35e6 / _BYTES_PER_S
        async with (
            self._answering(self._timeout_s + patience_s),
            self._turns,
            self._redis.pipeline(transaction=True) as steps,
        ):
            steps.hgetall(keys.job(job_id))
            steps.zscore(keys.open, job_id)
            steps.zscore(keys.expiry, job_id)
            steps.time()
            if limit:
                steps.lrange(keys.results(job_id), offset, offset + limit - 1)
            record, driven_until, expiry, (seconds, micros), *results = await steps.execute()
            return record, driven_until, expiry, seconds * 1000 + micros / 1000, results[0] if results else ()


def _check(reply: object) -> None:
    """Raise what a script has found against what is to be added."""
    match cast("Sequence[bytes | int]", reply):
        case [b"unknown"]:
            raise UnknownJob
        case [b"too large", int(most)]:
            raise JobTooLarge(most)
        case [b"full", bytes(of), int(most)]:
            raise JobsFull(of.decode(), most)
        case [b"share taken", bytes(of), int(most)]:
            raise JobShareTaken(of.decode(), most)


def _facts(job_id: str, record: Mapping[bytes, bytes], driven_until: float | None, expiry: float, now: float) -> Facts:
    status = cast("Status", record[b"state"].decode())
    if record[b"state"] == b"open":
        status = "running" if driven_until is not None and driven_until > now else "waiting"
    ended = record.get(b"ended")
    hook = record.get(b"hook", b"pending" if b"webhook" in record else b"").decode()
    return Facts(
        id=job_id,
        status=status,
        items=int(record[b"items"]),
        scored=int(record[b"scored"]),
        failed=int(record[b"failed"]),
        created_at=int(record[b"created"]) / 1000,
        ended_at=None if ended is None else int(ended) / 1000,
        expires_at=expiry / 1000,
        hook=cast("HookState", hook) if hook else None,
        hook_attempts=int(record.get(b"hook_attempts", b"0")),
        hook_detail=record.get(b"hook_detail", b"").decode(errors="replace"),
    )


def _event(entry: bytes, fields: Fields) -> Event:
    kind = cast("Literal['item', 'end']", fields[b"kind"].decode())
    number = int(entry.partition(b"-")[0])
    return Event(number, kind, fields[b"summary"], int(fields[b"scored"]), int(fields[b"failed"]))


def _ms(duration_s: float) -> int:
    return max(1, round(duration_s * 1000))
