"""What OpenAPI shows of jobs; see `service.routes.examples`."""

from collections.abc import Mapping
from typing import Any

from service.routes import examples

ID = "5b1f0c7e9a3d4c2f8e6b7a1d0c9f8e7d"
URLS: Mapping[str, Any] = {"urls": ["https://example.com/harbour.jpg", "https://example.com/street.png"]}
BEGUN: Mapping[str, Any] = {
    "id": ID,
    "status": "waiting",
    "counts": {"items": 2, "scored": 0, "failed": 0, "left": 2},
    "created_at": "2026-11-20T09:30:00.125000Z",
    "expires_at": "2026-11-20T10:30:00.125000Z",
    "durable": True,
    "webhook": {"state": "pending", "attempts": 0},
}
RUNNING: Mapping[str, Any] = {
    **BEGUN,
    "status": "running",
    "counts": {"items": 2, "scored": 1, "failed": 0, "left": 1},
    "results": examples.ITEMS[:1],
    "page": {"offset": 0},
}
DONE: Mapping[str, Any] = {
    **BEGUN,
    "status": "done",
    "counts": {"items": 2, "scored": 1, "failed": 1, "left": 0},
    "ended_at": "2026-11-20T09:30:01.250000Z",
    "expires_at": "2026-11-20T10:30:01.250000Z",
    "webhook": {"state": "delivered", "attempts": 1, "detail": "answered with status 204"},
    "results": examples.ITEMS,
    "page": {"offset": 0},
}
FIRST_PAGE: Mapping[str, Any] = {
    **DONE,
    "results": examples.ITEMS[:1],
    "page": {"offset": 0, "next": f"/v1/jobs/{ID}?offset=1&limit=1"},
}
EVENTS = """\
event: job
data: {"status":"running","counts":{"items":2,"scored":0,"failed":0,"left":2}}
retry: 1000

event: item
data: {"index":0,"name":"harbour.jpg","score":0.412345,"counts":{"items":2,"scored":1,"failed":0,"left":1}}
id: 1

event: item
data: {"index":1,"name":"half-a-picture.png","problem":"urn:clicv2:problem:corrupt-image",\
"counts":{"items":2,"scored":1,"failed":1,"left":0}}
id: 2

event: end
data: {"status":"done","counts":{"items":2,"scored":1,"failed":1,"left":0}}
id: 3

"""
