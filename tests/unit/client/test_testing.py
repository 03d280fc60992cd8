"""The fake service answers as the real one would: by its own schema, to the client's own requests."""

from io import BytesIO

import httpx
import pytest
from clicv2_client import AsyncClient, Client, errors
from clicv2_client.retry import NEVER
from clicv2_client.testing import PNG, STATUSES, WEBP, FakeService
from PIL import Image
from pydantic import BaseModel

from service import schemas

pytestmark = pytest.mark.anyio
A, B = PNG, PNG + b"another"
FILE = {"file": ("a.png", A, "image/png")}
FILES = [
    ("file", ("a.png", A, "image/png")),
    ("file", ("b.png", B, "image/png")),
    ("file", ("c", b"text", "text/plain")),
]


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def raw(service: FakeService) -> httpx.Client:
    """Whoever asks without our client."""
    return httpx.Client(transport=service, base_url="http://test")


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/v1/complexity", schemas.Complexity),
        ("/v1/complexity?heatmap=grid", schemas.Complexity),
        ("/v1/complexity?heatmap=png&embedding=true", schemas.Complexity),
        ("/v1/complexity?heatmap=overlay", schemas.Complexity),
    ],
)
def test_a_score_is_by_the_schema(raw: httpx.Client, path: str, model: type[BaseModel]) -> None:
    answer = raw.post(path, content=A, headers={"Content-Type": "image/png"})
    model.model_validate_json(answer.content)
    assert ("heatmap" in path) == ("heatmap" in answer.json())
    assert ("embedding" in path) == ("embedding" in answer.json())


def test_other_answers_are_by_the_schema(raw: httpx.Client) -> None:
    schemas.Comparison.model_validate_json(raw.post("/v1/compare", files=FILES[:2]).content)
    schemas.ModelList.model_validate_json(raw.get("/v1/models").content)
    schemas.ModelFacts.model_validate_json(raw.get("/v1/models/clicv2").content)
    batch = schemas.Batch.model_validate_json(raw.post("/v1/complexity/batch", files=FILES).content)
    assert [item.result is None for item in batch.items] == [False, False, True]
    job = raw.post("/v1/jobs", files=FILES)
    assert job.status_code == 202
    facts = schemas.JobFacts.model_validate_json(job.content)
    page = schemas.JobPage.model_validate_json(raw.get(f"/v1/jobs/{facts.id}").content)
    assert [item.result is None for item in page.results] == [False, False, True]
    assert page.counts.failed == 1
    for line in raw.get(f"/v1/jobs/{facts.id}/events").text.splitlines():
        if line.startswith("data: "):
            schemas.JobEvent.model_validate_json(line.removeprefix("data: "))
    assert raw.delete(f"/v1/jobs/{facts.id}").status_code == 204
    assert raw.get(f"/v1/jobs/{facts.id}").status_code == 404


@pytest.mark.parametrize("slug", STATUSES)
def test_refusals_are_by_the_schema_and_raised(raw: httpx.Client, service: FakeService, slug: str) -> None:
    service.fail(slug, times=2, retry_after_s=3)
    answer = raw.post("/v1/complexity", content=A)
    assert answer.headers["content-type"] == "application/problem+json"
    assert schemas.ProblemDocument.model_validate_json(answer.content).status == answer.status_code
    with Client(transport=service, retry=NEVER) as client, pytest.raises(errors.PROBLEMS[slug]) as caught:
        client.score(A)
    assert caught.value.retry_after_s == 3
    assert client


@pytest.mark.parametrize(("content", "kind"), [(b"", errors.EmptyImage), (b"text", errors.UnsupportedImage)])
def test_what_is_no_picture_is_refused(service: FakeService, content: bytes, kind: type[errors.Problem]) -> None:
    with Client(transport=service) as client, pytest.raises(kind):
        client.score(content)


@pytest.mark.parametrize(("data", "name"), [(PNG, "PNG"), (WEBP, "WEBP")])
def test_its_pictures_are_pictures(data: bytes, name: str) -> None:
    with Image.open(BytesIO(data)) as image:
        image.load()
        assert image.format == name


async def test_every_method_of_the_client_is_answered(service: FakeService) -> None:
    with Client(transport=service) as client:
        assert client.score(A).score == client.score(A).score != client.score(B).score
        assert client.score("https://example.com/a.jpg").score > 0
        assert client.heatmap(A, file="webp").media_type == "image/webp"
        assert [each.name for each in client.compare([A, B]).pictures] == ["picture", "picture"]
        assert client.model().name == client.models()[0].name
        assert [item.error is None for item in client.score_batch([A, b"text"]).items] == [True, False]
        assert client.score_archive(A).counts.items == 1
        job = client.jobs.submit([A, B, b"text"])
        assert client.jobs.wait(job.id) == job
        assert [item.unwrap().score for item in client.jobs.results(job.id, offset=0) if not item.error] == [
            client.score(A).score,
            client.score(B).score,
        ]
        assert [event.kind for event in client.jobs.events(job.id)] == ["item"] * 3 + ["end"]
        assert client.jobs.submit(["https://example.com/a.jpg"]).counts.scored == 1
        client.jobs.delete(job.id)
        with pytest.raises(errors.UnknownJob):
            client.jobs.get(job.id)
        with pytest.raises(errors.UnknownModel):
            client.model("other")
    async with AsyncClient(transport=service) as other:
        assert (await other.score(A)).score == (await other.heatmap(A)).score
        assert (await other.model()).name == (await other.models())[0].name
        assert len((await other.compare([A, B])).differences) == 1
        assert (await other.score_batch([A, B])).counts.scored == 2
        assert (await other.score_archive(A)).items[0].unwrap().score > 0
        job = await other.jobs.submit([A, B])
        assert await other.jobs.wait(job.id) == await other.jobs.get(job.id)
        assert len([item async for item in other.jobs.results(job.id)]) == 2
        assert [event.kind async for event in other.jobs.events(job.id)][-1] == "end"
        await other.jobs.delete(job.id)


def test_many_results_come_by_page(service: FakeService) -> None:
    pictures = [PNG + bytes([number]) for number in range(250)]
    with Client(transport=service) as client:
        job = client.jobs.submit(pictures)
        assert [item.index for item in client.jobs.results(job.id)] == list(range(250))
    assert len([request for request in service.requests if "offset" in str(request.url)]) == 3


def test_a_repeated_submission_is_one_job(service: FakeService) -> None:
    with Client(transport=service) as client:
        first, second = (client.jobs.submit([A], idempotency_key="k") for _ in range(2))
        third = client.jobs.submit([A])
    assert first.id == second.id != third.id


def test_a_failure_that_there_is_not_is_a_mistake(service: FakeService) -> None:
    with pytest.raises(ValueError, match="to-beautiful"):
        service.fail("to-beautiful")
