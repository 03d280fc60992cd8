"""What a problem's type means is a request away."""

import re
from collections.abc import AsyncIterator

import httpx
import pytest
from api import called
from fastapi import FastAPI

from clicv2.errors import Corrupt
from service import errors
from service.errors import PROBLEMS, Problem, ServiceError
from service.metrics import Metrics
from service.routes import problem_pages, problems
from service.routes.edge import Edge
from service.routes.explanations import EXPLANATIONS

pytestmark = pytest.mark.anyio

KINDS = [pytest.param(kind, id=kind.slug) for kind in problems.kinds()]


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app, metrics = FastAPI(), Metrics()

    @app.get("/corrupt")
    async def corrupt() -> None:
        raise Corrupt("half of it")

    @app.get("/number")
    async def number(of: int) -> int:
        return of

    app.include_router(problem_pages.routes())
    problems.install(app, metrics)
    app.add_middleware(Edge, metrics=metrics)
    async with called(app) as running:
        yield running


@pytest.mark.parametrize("kind", KINDS)
async def test_each_is_explained(client: httpx.AsyncClient, kind: Problem) -> None:
    for name in (kind.slug, kind.type):
        answer = await client.get(f"/errors/{name}")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/markdown; charset=utf-8"
        assert answer.text.startswith(f"# {kind.slug}\n\n`{kind.type}`, status {kind.status}: ")
        assert f'"status": {kind.status}' in answer.text


def test_nothing_is_explained_that_does_not_occur() -> None:
    assert set(EXPLANATIONS) == {kind.slug for kind in problems.kinds()}


def test_whether_to_try_again_is_said_as_the_answers_say_it() -> None:
    """ "later" refers to Retry-After, so it must be there; and where it is, it must be obeyed."""
    for error, kind in PROBLEMS.items():
        if error is errors.ClientGone:
            continue
        waits = issubclass(error, ServiceError) and (
            error.retry_after_s is not None or issubclass(error, errors.RateLimited | errors.Overloaded)
        )
        assert waits == (EXPLANATIONS[kind.slug].retry == "later"), kind.slug


def test_explanations_are_whole_sentences() -> None:
    for slug, told in EXPLANATIONS.items():
        for text in (told.when, told.remedy):
            assert text[0].isupper() or text[0] == "`", slug
            assert text.endswith("."), slug
            assert text.count("`") % 2 == 0, slug


@pytest.mark.parametrize("path", ["/corrupt", "/number?of=x", "/nothing", "/errors/nothing"])
async def test_every_problem_leads_to_its_explanation(client: httpx.AsyncClient, path: str) -> None:
    problem = await client.get(path)
    link = re.fullmatch(r'<(/errors/[a-z-]+)>; rel="help"', problem.headers["link"])
    assert link
    explanation = await client.get(link[1])
    assert f"`{problem.json()['type']}`" in explanation.text


async def test_a_browser_gets_a_page(client: httpx.AsyncClient) -> None:
    browser = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
    for path in ("/errors", "/errors/unauthorized"):
        answer = await client.get(path, headers=browser)
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert answer.headers["vary"] == "Accept"
        assert "`" not in answer.text.partition("<pre>")[0], "Markdown, which no browser reads"
        assert "<script" not in answer.text
    assert "<code>Authorization: Bearer KEY</code>" in answer.text
    assert "&quot;status&quot;: 401" in answer.text


async def test_the_list_leads_to_each(client: httpx.AsyncClient) -> None:
    page = await client.get("/errors", headers={"Accept": "text/html"})
    links = [str(page.url.join(link)) for link in re.findall(r'href="(./errors/[a-z-]+)"', page.text)]
    assert len(links) == len(problems.kinds())
    assert {(await client.get(link)).status_code for link in links} == {200}
    assert (await client.get("/errors")).text == problem_pages.markdown()


async def test_what_is_no_page(client: httpx.AsyncClient) -> None:
    assert (await client.get("/errors/nothing")).status_code == 404
    assert (await client.get("/errors/client-gone")).status_code == 404
    assert (await client.get("/errors", headers={"Accept": "image/png"})).status_code == 406
