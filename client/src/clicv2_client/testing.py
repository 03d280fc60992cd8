"""A service that is not there, to test code that asks one.

>>> from clicv2_client import Client, errors
>>> from clicv2_client.testing import FakeService
>>> service = FakeService(score=lambda data: len(data) / 1000)
>>> with Client(transport=service) as client:
...     client.score(b"\\x89PNG" + bytes(496)).score
0.5
>>> service.fail("overloaded", times=2, retry_after_s=0)
>>> with Client(transport=service) as client:
...     client.score(b"\\x89PNG" + bytes(496)).score
0.5
>>> len(service.requests)
4
"""

import base64
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import combinations
from secrets import token_hex
from threading import Lock

import httpx
from pydantic_core import from_json, to_json

from clicv2_client.errors import PREFIX

# The smallest PNG and WebP there are.
PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg==")
WEBP = base64.b64decode("UklGRhoAAABXRUJQVlA4TA0AAAAvAAAAEAcQERGIiP4HAA==")
STATUSES: Mapping[str, int] = {
    "empty-image": 400,
    "malformed-upload": 400,
    "missing-file": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "url-input-disabled": 403,
    "webhooks-disabled": 403,
    "not-found": 404,
    "unknown-job": 404,
    "unknown-model": 404,
    "method-not-allowed": 405,
    "not-acceptable": 406,
    "upload-timeout": 408,
    "image-too-large": 413,
    "too-many-files": 413,
    "bad-entry": 415,
    "unsupported-content": 415,
    "unsupported-image": 415,
    "corrupt-image": 422,
    "fetch-failed": 422,
    "forbidden-url": 422,
    "idempotency-key-reused": 422,
    "invalid-parameter": 422,
    "invalid-url": 422,
    "jobs-full": 429,
    "overloaded": 429,
    "quota-exceeded": 429,
    "rate-limited": 429,
    "inference-failed": 500,
    "internal-error": 500,
    "draining": 503,
    "no-worker": 503,
    "not-ready": 503,
    "unavailable": 503,
    "deadline-exceeded": 504,
}
_FORMATS = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"RIFF": "WEBP"}
_MODEL = {"name": "clicv2", "version": 1}
_GRID = 8
_JOB = re.compile(r"/v1/jobs/(\w+)(/events)?")

Document = dict[str, object]


def score_by_content(data: bytes) -> float:
    """The same for the same bytes, another one for others."""
    return round(int.from_bytes(hashlib.sha256(data).digest()[:4]) / 2**32, 6)


@dataclass(frozen=True, slots=True)
class _Refusal(Exception):
    slug: str
    detail: str
    retry_after_s: float | None = None


@dataclass
class _Job:
    facts: Document
    results: list[Document] = field(default_factory=list)


class FakeService(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """A transport for `Client` and `AsyncClient` that answers as the service does. Threads may share one.

    Pictures are told apart from other bytes by how they begin, no more; jobs are done at once.

    Args:
        score: of a picture's bytes; of a URL, those of its text.

    Attributes:
        requests: all that came, those that were refused too.
    """

    def __init__(self, score: Callable[[bytes], float] = score_by_content) -> None:
        self.requests: list[httpx.Request] = []
        self._score = score
        self._failures: list[_Refusal | None] = []
        self._jobs: dict[str, _Job] = {}
        self._job_of_key: dict[str, str] = {}
        self._lock = Lock()

    def fail(self, slug: str, *, times: int = 1, retry_after_s: float | None = None, detail: str = "") -> None:
        """Refuse the next requests with a problem, e.g. "overloaded"; after those that are to fail already."""
        if slug not in STATUSES:
            raise ValueError(f"no type of problem: {slug!r}; there are {', '.join(STATUSES)}")
        refusal = _Refusal(slug, detail or slug.replace("-", " "), retry_after_s)
        self._failures += [refusal] * times

    def disconnect(self, *, times: int = 1) -> None:
        """Do not be there for the next requests."""
        self._failures += [None] * times

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        return self._answer(request)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        return self._answer(request)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        with self._lock:
            self.requests.append(request)
            failure = self._failures.pop(0) if self._failures else _NO_FAILURE
            if failure is None:
                raise httpx.ConnectError("the fake service is not there", request=request)
            try:
                if failure is not _NO_FAILURE:
                    raise failure
                return self._serve(request)
            except _Refusal as refusal:
                return _problem(refusal)

    def _serve(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        match request.method, path[max(0, path.find("/v1/")) :]:  # a base URL may have a path of its own
            case "POST", "/v1/complexity":
                return self._complexity(request)
            case "POST", "/v1/complexity/batch":
                return _json(self._batch(request))
            case "POST", "/v1/compare":
                return _json(self._comparison([(name, data) for name, data in _files(request)]))
            case "POST", "/v1/jobs":
                return self._submit(request)
            case "GET", "/v1/models":
                return _json({"models": [_model()]})
            case "GET", "/v1/models/clicv2" | "/v1/models/clicv2:1":
                return _json(_model())
            case method, path if found := _JOB.fullmatch(path):
                return self._job(method, found[1], bool(found[2]), request.url.params)
            case _, path if path.startswith("/v1/models/"):
                raise _Refusal("unknown-model", "no such model is served, only 'clicv2:1'")
        raise _Refusal("not-found", f"{request.method} {request.url.path}: Not Found")

    def _complexity(self, request: httpx.Request) -> httpx.Response:
        picture = request.content
        if request.headers.get("content-type") == "application/json":
            picture = _url(request)
        document = self._scored(picture, request.url.params)
        wanted = request.headers.get("accept", "")
        if not wanted.startswith("image/"):
            return _json(document)
        headers = {f"X-Complexity-{name}": str(document[name]) for name in ("score", "percentile", "entropy")}
        content = WEBP if wanted == "image/webp" else PNG
        return httpx.Response(200, headers={**headers, "Content-Type": wanted}, content=content)

    def _scored(self, data: bytes, params: httpx.QueryParams) -> Document:
        facts = _facts(data)
        score = self._score(data)
        document: Document = {
            "id": token_hex(16),
            "score": score,
            "percentile": round(100 * score, 2),
            "entropy": round(score / 2, 6),
            "model": _MODEL,
            "image": facts,
            "timings": dict.fromkeys(("upload_s", "decode_s", "queue_s", "inference_s", "render_s", "total_s"), 0.001),
        }
        kind = params.get("heatmap", "none")
        if kind == "grid":
            document["heatmap"] = {"kind": "grid", "rows": _GRID, "columns": _GRID, "values": [[score] * _GRID] * _GRID}
        elif kind != "none":
            document["heatmap"] = _picture(kind)
        if params.get("embedding") == "true":
            document["embedding"] = [score] * _GRID
        return document

    def _comparison(self, pictures: list[tuple[str, bytes]]) -> Document:
        if len(pictures) < 2:
            raise _Refusal("missing-file", "to compare takes two pictures or more")
        scored = [self._scored(data, httpx.QueryParams()) for _, data in pictures]
        scores = [self._score(data) for _, data in pictures]
        return {
            "model": _MODEL,
            "pictures": [
                {
                    "index": index,
                    "name": pictures[index][0],
                    "rank": 1 + sum(other > scores[index] for other in scores),
                    **{name: each[name] for name in ("score", "percentile", "entropy", "image")},
                }
                for index, each in enumerate(scored)
            ],
            "differences": [
                {
                    "first": first,
                    "second": second,
                    "score": round(scores[second] - scores[first], 6),
                    "percentile": round(100 * (scores[second] - scores[first]), 2),
                    "entropy": round((scores[second] - scores[first]) / 2, 6),
                }
                for first, second in combinations(range(len(scores)), 2)
            ],
        }

    def _batch(self, request: httpx.Request) -> Document:
        items = [self._item(*each, request) for each in enumerate(_files(request))]
        failed = sum("problem" in item for item in items)
        return {"items": items, "counts": {"items": len(items), "scored": len(items) - failed, "failed": failed}}

    def _submit(self, request: httpx.Request) -> httpx.Response:
        key = request.headers.get("idempotency-key", "")
        if key not in self._job_of_key:
            pictures = _urls(request) if request.headers["content-type"] == "application/json" else _files(request)
            job = _Job({"id": token_hex(16)}, [self._item(*each, request) for each in enumerate(pictures)])
            failed = sum("problem" in result for result in job.results)
            counts = {"items": len(pictures), "scored": len(pictures) - failed, "failed": failed, "left": 0}
            now = datetime.now(UTC)
            job.facts |= {"status": "done", "counts": counts, "durable": False}
            job.facts |= {"created_at": now, "ended_at": now, "expires_at": now + timedelta(hours=1)}
            self._jobs[str(job.facts["id"])] = job
            if not key:
                return _json(job.facts, 202)
            self._job_of_key[key] = str(job.facts["id"])
        return _json(self._jobs[self._job_of_key[key]].facts, 202)

    def _item(self, index: int, picture: tuple[str, bytes], request: httpx.Request) -> Document:
        name, data = picture
        try:
            return {"index": index, "name": name, "result": self._scored(data, request.url.params)}
        except _Refusal as refusal:
            return {"index": index, "name": name, "problem": _document(refusal)}

    def _job(self, method: str, job_id: str, events: bool, params: httpx.QueryParams) -> httpx.Response:
        if job_id not in self._jobs:
            raise _Refusal("unknown-job", "there is no such job")
        if method == "DELETE":
            del self._jobs[job_id]
            return httpx.Response(204)
        job = self._jobs[job_id]
        if events:
            return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=_events(job))
        offset, limit = int(params.get("offset", 0)), int(params.get("limit", 100))
        after = offset + limit
        following = (
            {"next": f"/v1/jobs/{job_id}?offset={after}&limit={limit}"} if 0 < limit < len(job.results) - offset else {}
        )
        return _json({**job.facts, "results": job.results[offset:after], "page": {"offset": offset, **following}})


_NO_FAILURE = _Refusal("", "")


def _json(document: Document, status: int = 200) -> httpx.Response:
    return httpx.Response(status, headers={"Content-Type": "application/json"}, content=to_json(document))


def _problem(refusal: _Refusal) -> httpx.Response:
    headers = {"Content-Type": "application/problem+json"}
    if refusal.retry_after_s is not None:
        headers["Retry-After"] = f"{refusal.retry_after_s:.0f}"
    return httpx.Response(STATUSES[refusal.slug], headers=headers, content=to_json(_document(refusal)))


def _document(refusal: _Refusal) -> Document:
    return {
        "type": PREFIX + refusal.slug,
        "title": refusal.slug.replace("-", " ").capitalize(),
        "status": STATUSES[refusal.slug],
        "detail": refusal.detail,
        "instance": f"urn:clicv2:request:{token_hex(8)}",
    }


def _facts(data: bytes) -> Document:
    if not data:
        raise _Refusal("empty-image", "the picture is empty: 0 bytes")
    by_url = data.startswith((b"http://", b"https://"))
    found = "JPEG" if by_url else next((name for begin, name in _FORMATS.items() if data.startswith(begin)), None)
    if found is None:
        raise _Refusal("unsupported-image", "not a picture in a supported format (JPEG, PNG, WEBP)")
    sha256 = hashlib.sha256(data).hexdigest()
    return {"width": 640, "height": 480, "format": found, "sha256": sha256, "frames": 1}


def _picture(kind: str) -> Document:
    return {"kind": kind, "media_type": "image/png", "width": 1, "height": 1, "data": base64.b64encode(PNG).decode()}


def _url(request: httpx.Request) -> bytes:
    return str(from_json(request.content)["url"]).encode()


def _urls(request: httpx.Request) -> list[tuple[str, bytes]]:
    return [(url, url.encode()) for url in from_json(request.content)["urls"]]


def _files(request: httpx.Request) -> list[tuple[str, bytes]]:
    """Names and contents of a form's parts named `file`; any other body is one file."""
    boundary = re.search(r'boundary="?([^";]+)', request.headers.get("content-type", ""))
    if boundary is None:
        return [("archive", request.content)]
    found = []
    for part in request.content.split(f"--{boundary[1]}".encode())[1:-1]:
        head, _, data = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        if name := re.search(rb'name="file"; filename="([^"]*)"', head):
            found.append((name[1].decode(), data.removesuffix(b"\r\n")))
    if not found:
        raise _Refusal("missing-file", "the pictures must be parts named 'file'")
    return found


def _events(job: _Job) -> bytes:
    lines = []
    counts = job.facts["counts"]
    for number, item in enumerate(job.results, 1):
        result, problem = item.get("result"), item.get("problem")
        data: Document = {"index": item["index"], "name": item["name"], "counts": counts}
        if isinstance(result, dict):
            data["score"] = result["score"]
        elif isinstance(problem, dict):
            data["problem"] = problem["type"]
        lines.append(f"event: item\ndata: {to_json(data).decode()}\nid: {number}\n\n")
    end = to_json({"status": job.facts["status"], "counts": counts}).decode()
    return "".join([*lines, f"event: end\ndata: {end}\nid: {len(lines) + 1}\n\n"]).encode()


def _model() -> Document:
    return {
        **_MODEL,
        "method": "clicv2",
        "input": [256, 256, 3],
        "grid": [_GRID, _GRID],
        "embedding_size": _GRID,
        "fingerprint": "0123456789abcdef",
        "sha256": hashlib.sha256(b"model").hexdigest(),
        "preprocess": {},
        "recipe": {},
        "data": {},
        "calibration": {},
        "reference": [each / 100 for each in range(101)],
        "figures": {},
        "measured": {},
    }
