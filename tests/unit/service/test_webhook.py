"""Webhooks: signed as Standard Webhooks has it, sent to public hosts alone, and tried again with a bound."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from fetching import OTHER, PRIVATE, PUBLIC, passes_for_public
from standardwebhooks import Webhook, WebhookVerificationError
from web_host import FakeDns, WebHost, answer, redirect, web_host

from service.errors import ForbiddenUrl, InvalidUrl, WebhooksDisabled
from service.jobs.protocol import Facts, Hook
from service.jobs.webhook import Signer, Verdict, WebhookLimits, Webhooks, check
from service.outbound import Outbound

pytestmark = pytest.mark.anyio

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
FACTS = Facts("5b1f", "done", 3, 2, 1, 1_790_000_000.0, 1_790_000_001.25, 1_790_003_601.25)
LIMITS = WebhookLimits(timeout_s=5, attempts=3, first_pause_s=10, longest_pause_s=25)


@asynccontextmanager
async def receiver(
    limits: WebhookLimits = LIMITS, chance: float = 1.0, **pages: bytes
) -> AsyncIterator[tuple[WebHost, Webhooks]]:
    """A host on the internet, and what tells it of jobs; the pages are by their paths without the slash."""
    async with web_host() as host:
        host.pages = {f"/{path}": page for path, page in pages.items()}
        dns = FakeDns(
            {"public.example": [[PUBLIC]], "private.example": [[PRIVATE]], "mixed.example": [[OTHER, PRIVATE]]}
        )
        outbound = Outbound(dns, allowed=passes_for_public, ports=frozenset({host.port}))
        webhooks = Webhooks(Signer(SECRET), outbound, limits, chance=lambda: chance)
        yield host, webhooks
        await webhooks.close()


def hook(host: WebHost, path: str, attempt: int = 1, name: str = "public.example") -> Hook:
    return Hook(FACTS, f"http://{name}:{host.port}/{path}", attempt)


def test_another_implementation_believes_the_signature() -> None:
    body = b'{"a":1}'
    headers = dict(Signer(SECRET).headers("id", 1_600_000_000, body))
    other = Webhook(SECRET)
    with pytest.raises(WebhookVerificationError, match="timestamp"):
        other.verify(body, headers)
    fresh = dict(Signer(SECRET).headers("id", int(time.time()), body))
    assert other.verify(body, fresh) == {"a": 1}
    for wrong in ({"webhook-id": "other"}, {"webhook-timestamp": str(int(time.time()) + 1)}):
        with pytest.raises(WebhookVerificationError, match="signature"):
            other.verify(body, fresh | wrong)
    with pytest.raises(WebhookVerificationError, match="signature"):
        other.verify(b'{"a":2}', fresh)
    assert Signer(SECRET.removeprefix("whsec_")).headers("id", 1, body) == Signer(SECRET).headers("id", 1, body)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_c2hvcnQ=", "not base64!", "whsec_" + "A" * 200])
def test_a_secret_that_is_none(secret: str) -> None:
    with pytest.raises(ValueError, match="whsec_") as refusal:
        Signer(secret)
    assert secret in ("", "whsec_") or secret not in str(refusal.value)


def test_what_is_told_at_once() -> None:
    with pytest.raises(WebhooksDisabled):
        check("https://example.com/", None)
    webhooks = Webhooks(Signer(SECRET), Outbound(FakeDns({})), LIMITS)
    check("https://example.com/hook?token=1", webhooks)
    for bad in ("ftp://example.com/", "https://user:word@example.com/", "no url"):
        with pytest.raises(InvalidUrl):
            check(bad, webhooks)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "https://10.1.2.3/hook",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::1]/",
        "http://[::ffff:169.254.169.254]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[fd00:ec2::254]/",
        "http://localhost/",
        "http://metadata.google.internal./",
        "http://receiver/",
        "http://１２７.０.０.１/",
        "https://example.com:22/",
        "https://93.184.216.34:8080/",
    ],
)
def test_what_could_never_be_delivered_is_refused_at_once(url: str) -> None:
    webhooks = Webhooks(Signer(SECRET), Outbound(FakeDns({})), LIMITS)
    with pytest.raises(ForbiddenUrl):
        check(url, webhooks)


def test_a_secret_can_be_replaced() -> None:
    """While it is, there are two, and whichever of them a receiver knows, it believes the message."""
    new, old = SECRET, "whsec_" + base64.b64encode(bytes(24)).decode()
    headers = dict(Signer(f"{new} {old}").headers("id", int(time.time()), b"{}"))
    assert len(headers["webhook-signature"].split(" ")) == 2
    for known in (new, old):
        assert Webhook(known).verify(b"{}", headers) == {}
    with pytest.raises(WebhookVerificationError, match="signature"):
        Webhook(base64.b64encode(bytes(range(24))).decode()).verify(b"{}", headers)
    with pytest.raises(ValueError, match="whsec_"):
        Signer(f"{new} c2hvcnQ=")


async def test_a_delivery() -> None:
    async with receiver(hook=answer(b"", status="204 No Content")) as (host, webhooks):
        verdict = await webhooks.deliver(hook(host, "hook"))
        assert verdict == Verdict("delivered", "answered with status 204")
        (head,) = host.heads
        assert head.startswith("POST /hook HTTP/1.1\r\n")
        assert host.header("content-type") == ["application/json"]
        assert host.header("webhook-id") == ["5b1f"]
        assert host.header("user-agent")[0].startswith("clicv2/")


async def test_the_body_is_small_signed_and_the_same_each_time() -> None:
    received: list[tuple[dict[str, str], bytes]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
        lowered = {name.lower(): value for name, value in headers.items()}
        received.append((lowered, await reader.readexactly(int(lowered["content-length"]))))
        writer.write(answer(b"thanks"))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.99.99.99", 0)
    port = server.sockets[0].getsockname()[1]
    outbound = Outbound(FakeDns({"public.example": [[PUBLIC]]}), allowed=passes_for_public, ports=frozenset({port}))
    webhooks = Webhooks(Signer(SECRET), outbound, LIMITS)
    for attempt in (1, 2):
        verdict = await webhooks.deliver(Hook(FACTS, f"http://public.example:{port}/", attempt))
        assert verdict.state == "delivered"
    server.close()
    await webhooks.close()
    (first, body), (second, again) = received
    assert body == again
    assert first["webhook-id"] == second["webhook-id"]
    assert json.loads(body) == Webhook(SECRET).verify(body, first) == Webhook(SECRET).verify(body, second)
    assert json.loads(body) == {
        "type": "job.ended",
        "timestamp": "2026-09-21T14:13:21.250+00:00",
        "data": {"id": "5b1f", "status": "done", "counts": {"items": 3, "scored": 2, "failed": 1, "left": 0}},
    }


@pytest.mark.parametrize(
    ("page", "detail"),
    [
        (answer(b"", status="500 No"), "answered with status 500"),
        (answer(b"", status="404 Not Found"), "answered with status 404"),
        (redirect("http://public.example/"), "answered with status 302"),
        (b"SSH-2.0-OpenSSH_9\r\n", "'public.example' does not speak HTTP as it should"),
        (b"", "'public.example' "),
    ],
    ids=["500", "404", "redirect", "no HTTP", "nothing"],
)
async def test_what_fails_is_tried_again_with_a_bound(page: bytes, detail: str) -> None:
    async with receiver(page=page) as (host, webhooks):
        found = [await webhooks.deliver(hook(host, "page", attempt)) for attempt in (1, 2, 3, 4)]
    assert [verdict.state for verdict in found] == ["pending", "pending", "failed", "failed"]
    assert [verdict.again_in_s for verdict in found] == [10, 25, 0, 0], "four times as long each time, and bounded"
    assert found[0].detail.startswith(detail)
    assert len(host.heads) == 3, "a fourth attempt there is not, and no redirect is followed"


async def test_pauses_are_jittered() -> None:
    async with receiver(chance=0.0, page=answer(b"", status="500 No")) as (host, webhooks):
        assert (await webhooks.deliver(hook(host, "page"))).again_in_s == 5


async def test_who_does_not_want_it_any_more() -> None:
    async with receiver(page=answer(b"", status="410 Gone")) as (host, webhooks):
        assert (await webhooks.deliver(hook(host, "page"))).state == "failed"


async def test_a_receiver_that_never_answers() -> None:
    async with receiver(replace(LIMITS, timeout_s=0.2)) as (host, webhooks):

        async def never(writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(3)

        host.pages["/slow"] = never
        verdict = await webhooks.deliver(hook(host, "slow"))
        assert (verdict.state, verdict.detail) == ("pending", "no answer within 0.2 s")


@pytest.mark.parametrize(
    "name", ["private.example", "mixed.example", "127.0.0.1", "localhost", "[::1]", "nobody.example", "169.254.169.254"]
)
async def test_a_private_address_gets_nothing(name: str) -> None:
    async with receiver(page=answer(b"secret")) as (host, webhooks):
        verdict = await webhooks.deliver(hook(host, "page", name=name))
        assert (verdict.state, verdict.again_in_s) == ("failed", 0)
        assert "no public host" in verdict.detail
        assert not host.arrivals
        other_port = Hook(FACTS, "http://public.example:22/", 1)
        assert "port 22 is not allowed" in (await webhooks.deliver(other_port)).detail
