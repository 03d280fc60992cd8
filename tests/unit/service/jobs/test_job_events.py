"""The events of a job, over both stores."""

import json
from dataclasses import replace

import pytest
from jobs import LIMITS, PICTURES, SCORES, Stores, location, one, problem
from queues import eventually
from scripted import ScriptedBackend

from service.catalog import Catalog

pytestmark = pytest.mark.anyio


def events(text: str) -> list[tuple[str | None, str | None, dict[str, object]]]:
    """Id, kind and data of each."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append((fields.get("id"), fields.get("event"), json.loads(fields["data"])))
    return found


async def test_events(stores: Stores, catalog: Catalog, scripted: ScriptedBackend) -> None:
    scripted.call_s = 0.03
    async with one(stores, catalog, scripted, over_http=True) as running:
        path = await location(running, PICTURES | {"no.png": b"no"})
        stream = await running.client.get(f"{path}/events", timeout=60)
        assert stream.headers["content-type"].startswith("text/event-stream")
        (first_id, first, state), *items, (last_id, last, end) = events(stream.text)
        assert (first_id, first) == (None, "job")
        assert state["status"] in ("waiting", "running")
        assert [number for number, _, _ in items] == ["1", "2", "3", "4", "5", "6"]
        assert {kind for _, kind, _ in items} == {"item"}
        assert {each["name"]: each["score"] for _, _, each in items if "score" in each} == SCORES
        assert [each["problem"] for _, _, each in items if "problem" in each] == [
            "urn:clicv2:problem:unsupported-image"
        ]
        assert [each["counts"]["left"] for _, _, each in items] == [5, 4, 3, 2, 1, 0]  # type: ignore[index]
        assert (last_id, last) == ("7", "end")
        assert end == {"status": "done", "counts": {"items": 6, "scored": 5, "failed": 1, "left": 0}}

        rest = await running.client.get(f"{path}/events", headers={"Last-Event-ID": "4"})
        assert [number for number, _, _ in events(rest.text)] == [None, "5", "6", "7"]
        assert events(rest.text)[1:] == events(stream.text)[5:], "the same as they were"
        over = await running.client.get(f"{path}/events", headers={"Last-Event-ID": "7"})
        assert (over.status_code, over.content) == (204, b"")
        for wrong in ("x", "-1", "1.5", "9" * 10):
            refused = await running.client.get(f"{path}/events", headers={"Last-Event-ID": wrong})
            assert problem(refused) == (422, "invalid-parameter")
        refused = await running.client.get(f"{path}/events", headers={"Accept": "text/html"})
        assert problem(refused) == (406, "not-acceptable")
        assert problem(await running.client.get("/v1/jobs/nothing/events")) == (404, "unknown-job")
        await eventually(lambda: running.count("clicv2_event_streams") == 0)


async def test_an_event_that_never_was_is_the_last_one(
    stores: Stores, catalog: Catalog, scripted: ScriptedBackend
) -> None:
    scripted.call_s = 0.1
    async with one(stores, catalog, scripted, over_http=True) as running:
        path = await location(running)
        stream = await running.client.get(f"{path}/events", headers={"Last-Event-ID": "999"}, timeout=60)
        assert events(stream.text)[-1][1] == "end"


async def test_heartbeats_and_a_deletion(stores: Stores, catalog: Catalog, scripted: ScriptedBackend) -> None:
    async with one(
        stores, catalog, scripted, replace(LIMITS, heartbeat_s=0.1), drives=False, over_http=True
    ) as running:
        path = await location(running)
        async with running.client.stream("GET", f"{path}/events", timeout=60) as stream:
            lines: list[str] = []
            async for line in stream.aiter_lines():
                lines.append(line)
                if lines.count(": still here") == 2:
                    await running.client.delete(path)
            (end,) = [each for each in events("\n".join(lines)) if each[1] == "end"]
            assert end[2]["status"] == "deleted"


async def test_streams_are_bounded_and_cost_nothing_once_nobody_listens(
    stores: Stores, catalog: Catalog, scripted: ScriptedBackend
) -> None:
    async with one(stores, catalog, scripted, replace(LIMITS, streams=1), drives=False, over_http=True) as running:
        path = await location(running)
        async with running.client.stream("GET", f"{path}/events", timeout=60) as stream:
            await anext(stream.aiter_lines())
            assert running.count("clicv2_event_streams") == 1
            refused = await running.client.get(f"{path}/events")
            assert problem(refused) == (429, "jobs-full")
            assert refused.json()["limit"] == "event-streams"
        await eventually(lambda: running.count("clicv2_event_streams") == 0)
        async with running.client.stream("GET", f"{path}/events", timeout=60) as stream:
            assert stream.status_code == 200
            running.service.door.drain()
            lines = [line async for line in stream.aiter_lines()]  # it ends
            assert "event: end" not in lines
        assert problem(await running.client.get(f"{path}/events")) == (503, "draining")
