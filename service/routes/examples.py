"""What OpenAPI shows: one request or answer of each kind. Of real answers, shortened; a test keeps them valid."""

from collections.abc import Mapping
from typing import Any

# Detail and further members of each problem, by its slug.
DETAILS: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "empty-image": ("the picture is empty: 0 bytes", {}),
    "unsupported-image": ("not a JPEG, PNG or WebP picture", {}),
    "corrupt-image": ("the PNG cannot be decoded: image file is truncated", {}),
    "image-too-large": (
        "the picture has 169000000 pixels, the limit is 50000000",
        {"limit": "pixels", "actual": 169_000_000, "maximum": 50_000_000},
    ),
    "not-acceptable": ("the answer can be application/json or image/png; Accept allows none of it: text/html", {}),
    "unsupported-content": (
        "send multipart/form-data with a part named 'file', or the picture itself; the Content-Type is 'text/plain'",
        {},
    ),
    "malformed-upload": ("the multipart body ends before its closing boundary", {}),
    "missing-file": ("the picture must be the part named 'file'; parts found: 'image'", {}),
    "too-many-files": (
        "a request may hold 256 pictures, this one has more",
        {"limit": "pictures", "maximum": 256},
    ),
    "bad-entry": ("a symbolic link, no file", {}),
    "invalid-parameter": (
        "heatmap_size: Input should be less than or equal to 1024",
        {"invalid": [{"parameter": "heatmap_size", "detail": "Input should be less than or equal to 1024"}]},
    ),
    "idempotency-key-reused": (
        "this Idempotency-Key came before with another picture; a new picture needs a new key",
        {},
    ),
    "url-input-disabled": ("this server takes no pictures by URL: send the picture itself", {}),
    "upload-timeout": ("the upload did not arrive within the deadline", {}),
    "unknown-model": ("version 3 of 'clicv2' does not answer, version 1 does", {}),
    "overloaded": (
        "the service is at its limit of 128 pictures in flight; try again later",
        {"limit": "requests", "maximum": 128},
    ),
    "unavailable": ("the queue is out of reach; try again later", {}),
    "draining": ("this process is draining: it takes no new requests", {}),
    "not-ready": ("the backend did not answer in time", {}),
    "no-worker": ("no worker is ready to score pictures; try again later", {}),
    "inference-failed": ("the model's heatmap or embedding holds values that are not finite", {}),
    "deadline-exceeded": ("the deadline passed before there was an answer", {}),
    "internal-error": ("An unexpected error; the log has it under this request's id.", {}),
    "unauthorized": ("send an API key: `Authorization: Bearer KEY`, or `X-API-Key: KEY`", {}),
    "forbidden": ("this needs an API key with the scope 'admin'; this one has 'read'", {}),
    "rate-limited": (
        "10 requests in 1 s are allowed, of which 0 are left; try again in 1 s",
        {"violated-policies": ["rate"], "maximum": 10, "window_s": 1},
    ),
    "quota-exceeded": (
        "10000 pictures in 86400 s are allowed, of which 0 are left; try again in 30512 s",
        {"violated-policies": ["quota"], "maximum": 10_000, "window_s": 86_400},
    ),
    "invalid-url": ("the URL is not of the scheme https or http", {}),
    "forbidden-url": ("the URL does not lead to a public host", {}),
    "fetch-failed": ("'example.com' answered with status 404", {"upstream_status": 404}),
    "unknown-job": ("there is no such job: it never was, it is not yours, or it has been forgotten", {}),
    "webhooks-disabled": ("this server sends no webhooks: ask for the job instead", {}),
    "jobs-full": ("jobs are at their limit of 100 unfinished ones; try again later", {"limit": "jobs", "maximum": 100}),
    "not-found": ("GET /v2/complexity: Not Found", {}),
    "malformed-request": ("Invalid HTTP request received.", {}),
    "headers-too-large": ("the method, path and headers may have 65536 bytes", {}),
    "headers-timeout": ("they did not arrive within 10 s", {}),
    "method-not-allowed": ("GET /v1/complexity: Method Not Allowed", {}),
}

# How each operation is called from a shell, by its id.
CALLS: Mapping[str, str] = {
    "score": "curl -F file=@photo.jpg http://127.0.0.1:8000/v1/complexity",
    "score_batch": "curl -F file=@one.jpg -F file=@two.png http://127.0.0.1:8000/v1/complexity/batch",
    "compare": "curl -F file=@one.jpg -F file=@two.png 'http://127.0.0.1:8000/v1/compare?difference=grid'",
    "create_job": "curl -F file=@one.jpg -F file=@two.png http://127.0.0.1:8000/v1/jobs",
    "job": "curl http://127.0.0.1:8000/v1/jobs/5b1f0c7e9a3d4c2f8e6b7a1d0c9f8e7d",
    "job_events": "curl -N http://127.0.0.1:8000/v1/jobs/5b1f0c7e9a3d4c2f8e6b7a1d0c9f8e7d/events",
    "forget_job": "curl -X DELETE http://127.0.0.1:8000/v1/jobs/5b1f0c7e9a3d4c2f8e6b7a1d0c9f8e7d",
    "list_models": "curl http://127.0.0.1:8000/v1/models",
    "get_model": "curl http://127.0.0.1:8000/v1/models/clicv2",
    "list_errors": "curl http://127.0.0.1:8000/errors",
    "explain_error": "curl http://127.0.0.1:8000/errors/overloaded",
    "livez": "curl http://127.0.0.1:8000/livez",
    "readyz": "curl http://127.0.0.1:8000/readyz",
    "metrics": "curl http://127.0.0.1:8000/metrics",
}

# The smallest PNG there is: one grey pixel.
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="

_MODEL = {"name": "clicv2", "version": 1}
_IMAGE = {
    "width": 640,
    "height": 480,
    "format": "JPEG",
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "frames": 1,
}
_TIMINGS = {
    "upload_s": 0.000412,
    "decode_s": 0.004215,
    "queue_s": 0.000631,
    "inference_s": 0.016512,
    "render_s": 0.000087,
    "total_s": 0.021857,
}
_GRID = {"kind": "grid", "rows": 2, "columns": 2, "values": [[0.61, 0.32], [0.58, 0.29]]}

COMPLEXITY: Mapping[str, Any] = {
    "id": "4f1c2a9be07d4c3b8a55d0f1e2c3b4a5",
    "score": 0.412345,
    "percentile": 83.61,
    "entropy": 0.537812,
    "model": _MODEL,
    "image": _IMAGE,
    "timings": _TIMINGS,
}
WITH_GRID: Mapping[str, Any] = {**COMPLEXITY, "heatmap": _GRID}
WITH_PICTURE: Mapping[str, Any] = {
    **COMPLEXITY,
    "heatmap": {"kind": "png", "media_type": "image/png", "width": 1, "height": 1, "data": PIXEL},
}
PROBLEM: Mapping[str, Any] = {
    "type": "urn:clicv2:problem:corrupt-image",
    "title": "The picture is damaged",
    "status": 422,
    "detail": "the PNG cannot be decoded: image file is truncated",
    "instance": "urn:clicv2:request:9f86d081884c7d65",
}
ITEMS: tuple[Mapping[str, Any], ...] = (
    {"index": 0, "name": "harbour.jpg", "result": COMPLEXITY},
    {"index": 1, "name": "half-a-picture.png", "problem": PROBLEM},
)
BATCH: Mapping[str, Any] = {"items": ITEMS, "counts": {"items": 2, "scored": 1, "failed": 1}}
COMPARISON: Mapping[str, Any] = {
    "model": _MODEL,
    "pictures": [
        {
            "index": 0,
            "name": "poster-a.png",
            "rank": 2,
            "score": 0.301,
            "percentile": 57.2,
            "entropy": 0.41,
            "image": _IMAGE,
        },
        {
            "index": 1,
            "name": "poster-b.png",
            "rank": 1,
            "score": 0.455,
            "percentile": 91.4,
            "entropy": 0.58,
            "image": _IMAGE,
        },
    ],
    "differences": [
        {
            "first": 0,
            "second": 1,
            "score": 0.154,
            "percentile": 34.2,
            "entropy": 0.17,
            "heatmap": {"kind": "grid", "rows": 2, "columns": 2, "values": [[0.31, 0.02], [0.28, -0.05]]},
        }
    ],
}
MODEL: Mapping[str, Any] = {
    "name": "clicv2",
    "version": 1,
    "method": "clicv2",
    "input": [352, 352, 3],
    "grid": [22, 22],
    "embedding_size": 192,
    "fingerprint": "300960541b7aa25c",
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "preprocess": {"height": 352, "width": 352, "resample": "bicubic"},
    "recipe": {"name": "clicv2_small", "seed": 0},
    "data": {"ratings": "savoias-dev.csv", "ratings_images": 709},
    "calibration": {"kind": "logistic", "slope": 0.62, "intercept": -0.216},
    "reference": [0.022694, 0.277958, 0.5885],
    "figures": {"score_pcc_cross_validated": {"value": 0.804, "low": 0.773, "high": 0.831}},
    "measured": {"seconds_per_image_one_core": 0.034},
}
HEALTH: Mapping[str, Any] = {"status": "ok"}
FIGURES = """\
# HELP clicv2_requests_total HTTP requests by route, method and status.
# TYPE clicv2_requests_total counter
clicv2_requests_total{method="POST",route="/v1/complexity",status="200"} 1027.0
"""
OPENMETRICS = """\
# HELP clicv2_requests HTTP requests by route, method and status.
# TYPE clicv2_requests counter
clicv2_requests_total{method="POST",route="/v1/complexity",status="200"} 1027.0
# EOF
"""


def named(**values: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAPI's `examples` of one content; the names are shown, with spaces for underscores."""
    return {name: {"summary": name.replace("_", " "), "value": value} for name, value in values.items()}
