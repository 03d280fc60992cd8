"""Tells a caller's server that a job has ended: a small signed POST, as Standard Webhooks 1.0.0 lays it down.

    webhook-id         the job's id; the same in every attempt, so that a receiver knows what it has had already
    webhook-timestamp  Unix time of this attempt
    webhook-signature  v1,BASE64 of HMAC-SHA256 over "id.timestamp.body"; with several secrets one of each, with spaces
                       between, so that a secret can be replaced while receivers still know the one before

Delivered at least once: what was sent is noted after the answer, and whoever dies in between sends it again. The
receiver is a host that a caller names, so requests go through `service.outbound`: to public addresses alone, and no
redirect is followed. Nothing of its answer is kept but the status.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING

import orjson

from service.errors import FetchFailed, ForbiddenUrl, InvalidUrl, WebhooksDisabled
from service.jobs.protocol import Facts, Hook, HookState
from service.urls import parse

if TYPE_CHECKING:
    from service.outbound import Outbound  # takes 0.3 s to import, and most servers send none

_PREFIX = "whsec_"
_SECRET_BYTES = range(24, 65)  # as the standard has it
_AGENT = f"clicv2/{version('clicv2-complexity')}"
_GONE = 410


class Signer:
    """Signs with one secret, or with several: a receiver takes a message if any signature is by the one it knows.

    Args:
        secrets: each `whsec_` and 24 to 64 bytes in base64, or without the prefix; spaces between. Raises ValueError.
    """

    def __init__(self, secrets: str) -> None:
        self._keys = [_key(secret) for secret in secrets.split()]
        if not self._keys:
            raise ValueError(_BAD)

    def headers(self, message_id: str, timestamp: int, body: bytes) -> Mapping[str, str]:
        signed = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
        signatures = [base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in self._keys]
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
        }


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        raise ValueError(_BAD) from None  # which does not repeat it
    if len(key) not in _SECRET_BYTES:
        raise ValueError(_BAD)
    return key


@dataclass(frozen=True, slots=True)
class WebhookLimits:
    """What bounds deliveries.

    Attributes:
        timeout_s: of one attempt, from the look-up of the name to the answer's status.
        attempts: how often it is tried.
        first_pause_s, longest_pause_s: between attempts, four times as long each time, and then a random part of it.
    """

    timeout_s: float = 15.0
    attempts: int = 6
    first_pause_s: float = 5.0
    longest_pause_s: float = 900.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """How an attempt ended; see `service.jobs.protocol.Store.settle_hook`."""

    state: HookState
    detail: str = ""
    again_in_s: float = 0.0


class Webhooks:
    """Delivers.

    Args:
        outbound: where requests may go.
        clock: Unix time.
        chance: from 0 to 1.
    """

    def __init__(
        self,
        signer: Signer,
        outbound: "Outbound",
        limits: WebhookLimits,
        *,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._signer = signer
        self._outbound = outbound
        self._limits = limits
        self._clock = clock
        self._chance = chance

    @property
    def claim_s(self) -> float:
        """How long nobody else shall deliver what is being delivered here."""
        return self._limits.timeout_s + 10.0

    def check(self, url: str) -> None:
        """Refuse what could never be delivered. Raises InvalidUrl, ForbiddenUrl.

        Its name is looked up when it is delivered, and only then: what it leads to then is what matters. And whoever
        asks would learn which names there are on the network that the service is in.
        """
        self._outbound.check(parse(url))

    async def deliver(self, hook: Hook) -> Verdict:
        """One attempt. Never raises."""
        if hook.attempt > self._limits.attempts:  # gateways died while they tried
            return Verdict("failed", "given up: too many attempts")
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                status = await self._send(hook)
        except TimeoutError:
            return self._again(hook.attempt, f"no answer within {self._limits.timeout_s:g} s")
        except FetchFailed as error:
            return self._again(hook.attempt, str(error))
        except (ForbiddenUrl, InvalidUrl) as error:
            return Verdict("failed", str(error))
        if 200 <= status < 300:
            return Verdict("delivered", f"answered with status {status}")
        if status == _GONE:
            return Verdict("failed", "answered with status 410: not wanted any more")
        return self._again(hook.attempt, f"answered with status {status}")

    async def close(self) -> None:
        await self._outbound.close()

    async def _send(self, hook: Hook) -> int:
        body = payload(hook.facts)
        headers = {
            "User-Agent": _AGENT,
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **self._signer.headers(hook.facts.id, int(self._clock()), body),
        }
        async with self._outbound.exchange("POST", parse(hook.url), headers, body) as reply:
            return reply.status

    def _again(self, attempt: int, why: str) -> Verdict:
        if attempt >= self._limits.attempts:
            return Verdict("failed", why)
        pause_s = min(self._limits.longest_pause_s, self._limits.first_pause_s * 4 ** (attempt - 1))
        return Verdict("pending", why, pause_s * (0.5 + 0.5 * self._chance()))


def check(url: str, webhooks: Webhooks | None) -> None:
    """What can be told at once of where to tell of a job's end. Raises WebhooksDisabled, InvalidUrl, ForbiddenUrl."""
    if webhooks is None:
        raise WebhooksDisabled("this server sends no webhooks: it has no secret to sign them with")
    webhooks.check(url)


def payload(facts: Facts) -> bytes:
    """The body: the same in every attempt."""
    ended = datetime.fromtimestamp(facts.ended_at or 0.0, UTC)
    counts = {"items": facts.items, "scored": facts.scored, "failed": facts.failed, "left": facts.left}
    data = {"id": facts.id, "status": facts.status, "counts": counts}
    return orjson.dumps({"type": "job.ended", "timestamp": ended.isoformat(timespec="milliseconds"), "data": data})


_BAD = "each secret of webhooks is `whsec_` and 24 to 64 random bytes in base64: `openssl rand -base64 32` makes them"
