"""Keys, scopes, limits and headers in front of a small application, inside the real Edge."""

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from fastapi_offline import FastAPIOffline
from redis_server import redis_server

from service import keys
from service.allowance import Allowance
from service.errors import UnknownModel
from service.keys import KeyFile, Scope
from service.limits import Limiter, Policy, RedisCounts
from service.metrics import Metrics
from service.routes import problems
from service.routes.access import Access, caller_of, describe
from service.routes.edge import Edge
from service.routes.headers import SecurityHeaders, with_cors

pytestmark = pytest.mark.anyio

TWO = Allowance(2, 86_400)


def small_app() -> FastAPI:
    app = FastAPIOffline(title="small")

    @app.get("/livez")
    async def livez() -> str:
        return "ok"

    @app.get("/metrics")
    async def metrics() -> str:
        return "secret figures"

    @app.get("/v1/who")
    async def who(request: Request) -> dict[str, str]:
        caller = caller_of(request)
        return {"id": caller.id, "name": caller.name, "scope": caller.scope}

    @app.get("/v1/missing")
    async def missing() -> None:
        raise UnknownModel("no such model")

    @app.post("/v1/score")
    async def score(request: Request, pictures: int = 1) -> int:
        await caller_of(request).meter.pictures(pictures - 1)
        return pictures

    @app.get("/v1/broken")
    async def broken() -> float:
        return 1 / 0

    assert isinstance(app, FastAPI)
    return app


@dataclass
class Site:
    """A running application, and what was told about its callers."""

    client: httpx.AsyncClient
    path: Path
    refused: list[str] = field(default_factory=list)
    exceeded: list[Policy] = field(default_factory=list)

    def key(self, scope: Scope = "read", rate: Allowance | None = None, quota: Allowance | None = None) -> str:
        key, full = keys.make(f"{scope} of {len(keys.read(self.path))}", scope, rate, quota)
        keys.add(self.path, key)
        return full

    async def get(self, path: str, key: str | None = None, **headers: str) -> httpx.Response:
        if key:
            headers["Authorization"] = f"Bearer {key}"
        return await self.client.get(path, headers=headers)

    async def post(self, path: str, key: str) -> httpx.Response:
        return await self.client.post(path, headers={"X-API-Key": key})


@asynccontextmanager
async def site(
    tmp_path: Path,
    auth: Literal["on", "off"] = "on",
    limiter: Limiter | None = None,
    anonymous: Allowance | None = None,
    origins: Sequence[str] = (),
    client: tuple[str, int] = ("192.0.2.1", 1),
) -> AsyncIterator[Site]:
    app, metrics = small_app(), Metrics()
    problems.install(app, metrics)
    path = tmp_path / "keys.json"
    # The clock runs, so that each request sees a key which was made just before.
    ticks = iter(range(0, 10**6, 10))
    file = KeyFile(path, lambda: next(ticks), lambda: None) if auth == "on" else None
    running = Site(httpx.AsyncClient(), path)
    guarded = Access(
        app,
        file,
        limiter or Limiter(on_exceeded=running.exceeded.append),
        anonymous=anonymous,
        on_refused=running.refused.append,
    )
    outermost = SecurityHeaders(Edge(with_cors(guarded, origins), metrics))
    transport = httpx.ASGITransport(outermost, raise_app_exceptions=False, client=client)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as running.client:
        yield running


def problem(response: httpx.Response) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-request-id"] in response.json()["instance"]
    return response.status_code, response.json()["type"].removeprefix("urn:clicv2:problem:")


async def test_both_ways_to_send_a_key(tmp_path: Path) -> None:
    async with site(tmp_path) as running:
        key = running.key()
        for headers in (
            {"Authorization": f"Bearer {key}"},
            {"authorization": f"bearer  {key}"},
            {"X-API-Key": key},
            {"X-API-Key": key, "Authorization": "Basic cHJveHk6cHJveHk="},
        ):
            answer = await running.client.get("/v1/who", headers=headers)
            assert answer.status_code == 200, headers
            assert answer.json() == {"id": key[7:15], "name": "read of 0", "scope": "read"}
            assert "X-API-Key" in answer.headers["vary"]
        assert not running.refused


async def test_without_a_key(tmp_path: Path) -> None:
    async with site(tmp_path) as running:
        answer = await running.get("/v1/who")
        assert problem(answer) == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == 'Bearer realm="clicv2"'
        assert "ratelimit" not in answer.headers
        assert running.refused == ["unauthorized"]


async def test_keys_that_are_none(tmp_path: Path) -> None:
    async with site(tmp_path) as running:
        good = running.key()
        for key in (good[:-1], keys.make("stranger", "admin")[1], "x" * 5000, "clicv2_"):
            answer = await running.get("/v1/who", key)
            assert problem(answer) == (401, "unauthorized")
            assert answer.headers["www-authenticate"] == 'Bearer realm="clicv2", error="invalid_token"'
            assert key not in answer.text
        for headers in ({"Authorization": "Bearer"}, {"Authorization": f"Token {good}"}, {"X-API-Key": ""}):
            assert problem(await running.client.get("/v1/who", headers=headers)) == (401, "unauthorized")
        # A key in an URL ends in logs and histories.
        assert problem(await running.client.get("/v1/who", params={"key": good, "api_key": good}))[0] == 401


async def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    async with site(tmp_path) as running:
        for value in (b"Bearer \xff\xfe", b"Bearer clicv2_\x80"):
            answer = await running.client.get("/v1/who", headers=[(b"Authorization", value)])
            assert problem(answer) == (401, "unauthorized")


async def test_a_revoked_key(tmp_path: Path) -> None:
    async with site(tmp_path) as running:
        key = running.key()
        assert (await running.get("/v1/who", key)).status_code == 200
        keys.remove(running.path, key[7:15])
        assert problem(await running.get("/v1/who", key)) == (401, "unauthorized")


async def test_scopes(tmp_path: Path) -> None:
    async with site(tmp_path) as running:
        reader, admin = running.key("read"), running.key("admin")
        answer = await running.get("/metrics", reader)
        assert problem(answer) == (403, "forbidden")
        challenge = 'Bearer realm="clicv2", error="insufficient_scope", scope="admin"'
        assert answer.headers["www-authenticate"] == challenge
        assert "secret" not in answer.text
        assert running.refused == ["forbidden"]
        for path in ("/metrics", "/v1/who"):
            assert (await running.get(path, admin)).status_code == 200


async def test_what_is_open(tmp_path: Path) -> None:
    async with site(tmp_path) as running:
        for path in ("/livez", "/docs", "/openapi.json", "/static-offline-docs/swagger-ui.css"):
            assert (await running.get(path)).status_code == 200, path


async def test_what_is_not_open(tmp_path: Path) -> None:
    """By whatever way it is written, and whether it is there or not."""
    async with site(tmp_path) as running:
        for path in (
            "/metrics",
            "/metrics/",
            "http://test//metrics",
            "/nothing",
            "/livez/",
            "/docsx",
            "/%6detrics",
            "/v1/score",
        ):
            assert problem(await running.get(path)) == (401, "unauthorized"), path
        for path in ("/static-offline-docs/../metrics", "/static-offline-docs/%2e%2e/metrics"):
            assert "secret" not in (await running.get(path)).text
        assert (await running.client.options("/v1/who")).status_code == 401


async def test_every_answer_says_how_one_stands(tmp_path: Path) -> None:
    async with site(tmp_path) as running:
        key = running.key(rate=Allowance(100, 60), quota=Allowance(10, 86_400))
        for number, (path, status) in enumerate([("/v1/who", 200), ("/v1/missing", 404), ("/v1/nothing", 404)]):
            answer = await running.get(path, key)
            assert answer.status_code == status
            assert answer.headers["ratelimit-policy"] == '"rate";q=100;w=60, "quota";q=10;w=86400'
            found = re.fullmatch(r'"rate";r=(\d+);t=1', answer.headers["ratelimit"])
            assert found
            assert int(found[1]) >= 99 - number
        answer = await running.post("/v1/score?pictures=3", key)
        assert re.fullmatch(r'"rate";r=\d+;t=1, "quota";r=7;t=\d+', answer.headers["ratelimit"])
        assert (await running.post("/v1/score?pictures=x", key)).headers["ratelimit"].count(";r=6;") == 1


async def test_too_many_requests(tmp_path: Path) -> None:
    async with site(tmp_path) as running:
        key = running.key(rate=TWO)
        assert [(await running.get("/v1/who", key)).status_code for _ in range(3)] == [200, 200, 429]
        answer = await running.get("/v1/who", key)
        assert problem(answer) == (429, "rate-limited")
        assert answer.headers["ratelimit-policy"] == '"rate";q=2;w=86400'
        assert answer.headers["ratelimit"] == f'"rate";r=0;t={answer.headers["retry-after"]}'
        assert 43_000 < int(answer.headers["retry-after"]) <= 43_200
        assert answer.json()["violated-policies"] == ["rate"]
        assert running.exceeded == ["rate", "rate"]


async def test_too_many_pictures(tmp_path: Path) -> None:
    async with site(tmp_path) as running:
        key = running.key(quota=Allowance(5, 86_400))
        assert (await running.post("/v1/score?pictures=3", key)).status_code == 200
        refused = await running.post("/v1/score?pictures=3", key)  # refused by the route: it has counted
        assert problem(refused) == (429, "quota-exceeded")
        assert refused.json()["violated-policies"] == ["quota"]
        assert (await running.post("/v1/score", key)).status_code == 200
        last = await running.post("/v1/score", key)  # refused at the door
        assert problem(last) == (429, "quota-exceeded")
        assert last.headers["ratelimit"] == f'"quota";r=0;t={last.headers["retry-after"]}'
        assert (await running.get("/v1/who", key)).status_code == 200  # a quota is of pictures
        assert running.exceeded == ["quota", "quota"]


async def test_clients_with_other_limits_do_not_touch_each_other(tmp_path: Path) -> None:
    async with site(tmp_path) as running:
        few, many, free = running.key(rate=TWO), running.key(rate=Allowance(6, 86_400)), running.key()
        outcomes: dict[str, list[int]] = {few: [], many: [], free: []}
        for _ in range(8):
            for key, statuses in outcomes.items():
                statuses.append((await running.get("/v1/who", key)).status_code)
        assert [statuses.count(200) for statuses in outcomes.values()] == [2, 6, 8]


async def test_strangers_take_nothing_from_anybody(tmp_path: Path) -> None:
    """Whoever knows a key's public part must not be able to use up its rate."""
    async with site(tmp_path) as running:
        key = running.key(rate=TWO)
        for _ in range(5):
            await running.get("/v1/who", key[:-1] + ("a" if key[-1] != "a" else "b"))
        assert (await running.get("/v1/who", key)).headers["ratelimit"].startswith('"rate";r=1;')


async def test_two_gateways_count_together_and_outlive_their_redis(tmp_path: Path) -> None:
    with redis_server() as redis:
        lost: list[None] = []
        limiters = [
            Limiter(RedisCounts(redis.url, 10), timeout_s=10, on_lost=lambda: lost.append(None)) for _ in range(2)
        ]
        async with site(tmp_path, limiter=limiters[0]) as one, site(tmp_path, limiter=limiters[1]) as two:
            key = one.key(rate=Allowance(4, 86_400))
            statuses = [(await each.get("/v1/who", key)).status_code for _ in range(3) for each in (one, two)]
            assert statuses == [200] * 4 + [429] * 2
            redis.kill()
            assert [(await one.get("/v1/who", key)).status_code for _ in range(5)] == [200] * 4 + [429]
            assert len(lost) == 5
            assert (await one.get("/v1/who")).status_code == 401  # the door has nothing to do with Redis
        for limiter in limiters:
            await limiter.close()


async def test_off(tmp_path: Path) -> None:
    async with site(tmp_path, auth="off") as running:
        for path in ("/v1/who", "/metrics", "/livez"):
            answer = await running.get(path)
            assert answer.status_code == 200
            assert not {"ratelimit", "ratelimit-policy", "vary"} & set(answer.headers)
        assert (await running.get("/v1/who", "whatever")).json()["name"] == "anonymous"


async def test_addresses_may_be_limited(tmp_path: Path) -> None:
    limiter = Limiter()
    outcomes = {}
    addresses = (
        *("192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"),
        *("::ffff:192.0.2.1", "::ffff:192.0.2.3", "invented", "another"),
    )
    for address in addresses:
        async with site(tmp_path, auth="off", limiter=limiter, anonymous=TWO, client=(address, 1)) as running:
            outcomes[address] = [(await running.get("/v1/who")).status_code for _ in range(3)].count(200)
    # Who has one address of IPv6 has its whole network, but not all of IPv4; and who invents a name is one of many.
    assert list(outcomes.values()) == [2, 2, 2, 0, 2, 0, 2, 2, 0]


async def test_pages_of_others_read_nothing(tmp_path: Path) -> None:
    async with site(tmp_path) as running:
        answer = await running.get("/v1/who", running.key(), Origin="https://page.example")
        assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_pages_that_the_settings_name(tmp_path: Path) -> None:
    async with site(tmp_path, origins=["https://page.example"]) as running:
        asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        preflight = await running.client.options("/v1/score", headers={**asks, "Origin": "https://page.example"})
        assert preflight.status_code == 200  # browsers send no key with it
        assert preflight.headers["access-control-allow-origin"] == "https://page.example"
        for headers in ({}, {"Authorization": f"Bearer {running.key(rate=TWO)}"}):
            answer = await running.client.get("/v1/who", headers={**headers, "Origin": "https://page.example"})
            assert answer.headers["access-control-allow-origin"] == "https://page.example"
            assert "RateLimit" in answer.headers["access-control-expose-headers"]
            assert "access-control-allow-credentials" not in answer.headers
        other = await running.get("/v1/who", Origin="https://other.example")
        assert "access-control-allow-origin" not in other.headers


async def test_security_headers(tmp_path: Path) -> None:
    async with site(tmp_path) as running:
        key = running.key()
        answers = [await running.get(path, key) for path in ("/v1/who", "/v1/missing", "/v1/broken", "/livez")]
        assert [answer.status_code for answer in answers] == [200, 404, 500, 200]
        for answer in (*answers, await running.get("/v1/who")):
            assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["x-frame-options"] == "DENY"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert answer.headers["cross-origin-resource-policy"] == "same-origin"
            assert answer.headers["permissions-policy"] == "camera=(), geolocation=(), microphone=()"
            assert "strict-transport-security" not in answer.headers
            assert "server" not in answer.headers
        docs = (await running.get("/docs")).headers["content-security-policy"]
        assert "default-src 'self'" in docs
        assert "script-src 'self' 'unsafe-inline'" in docs


async def test_a_route_may_say_more_itself() -> None:
    app = FastAPI()

    @app.get("/page")
    async def page() -> Response:
        return Response("x", headers={"Content-Security-Policy": "default-src 'self' own"}, media_type="text/html")

    transport = httpx.ASGITransport(SecurityHeaders(app))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get("/page")
        assert answer.headers.get_list("content-security-policy") == ["default-src 'self' own"]
        assert answer.headers["x-frame-options"] == "DENY"


def test_the_schema_says_how_to_send_a_key() -> None:
    schema = describe(small_app().openapi())
    assert set(schema["components"]["securitySchemes"]) == {"bearer", "apiKey"}
    who = schema["paths"]["/v1/who"]["get"]
    assert who["security"] == [{}, {"bearer": []}, {"apiKey": []}]
    assert {"200", "401", "429"} <= set(who["responses"])
    assert "403" not in who["responses"]
    assert "RateLimit" in who["responses"]["200"]["headers"]
    assert "`unauthorized`" in who["responses"]["401"]["description"]
    assert "403" in schema["paths"]["/metrics"]["get"]["responses"]
    assert schema["paths"]["/livez"]["get"]["security"] == []
    assert "WWW-Authenticate" in who["responses"]["401"]["headers"]
    assert "`quota-exceeded`" not in who["responses"]["429"]["description"], "nothing but POST takes pictures"


def test_a_server_that_wants_keys_says_so_in_its_schema() -> None:
    schema = describe(small_app().openapi(), guarded=True)
    assert schema["paths"]["/v1/who"]["get"]["security"] == [{"bearer": []}, {"apiKey": []}]
    assert schema["paths"]["/livez"]["get"]["security"] == []


async def test_what_explains_needs_no_key(tmp_path: Path) -> None:
    async with site(tmp_path) as running:
        for path in ("/errors", "/errors/unauthorized", "/docs", "/openapi.json"):
            assert (await running.get(path)).status_code in (200, 404), path
        for path in ("/errorsx", "/errors/../v1/who", "/errors/%2e%2e/v1/who"):
            assert "caller" not in (await running.get(path)).text, path
            assert (await running.get(path)).status_code in (401, 404), path
