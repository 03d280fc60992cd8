"""The client's errors mirror the service's, and tell a caller what to do."""

import pickle
import re

import httpx
import pytest
from clicv2_client import answers, errors
from clicv2_client.answers import Reply
from clicv2_client.errors import PROBLEMS, Problem, ProblemDocument
from clicv2_client.testing import STATUSES

from service.errors import INTERNAL, INVALID_PARAMETER, PROBLEM_PREFIX, ClientGone
from service.errors import PROBLEMS as SERVED

# What the framework says of itself, and is in no table of the service.
OF_HTTP = {"not-found": 404, "method-not-allowed": 405}
SERVED_KINDS = {*SERVED.values(), INTERNAL, INVALID_PARAMETER} - {SERVED[ClientGone]}  # nobody sees that one


def reply(status: int, content: bytes = b"", **headers: str) -> Reply:
    return Reply(status, httpx.Headers({name.replace("_", "-"): value for name, value in headers.items()}), content)


def test_every_problem_of_the_service_has_its_class_and_no_class_is_of_another() -> None:
    assert errors.PREFIX == PROBLEM_PREFIX
    assert set(PROBLEMS) == {kind.slug for kind in SERVED_KINDS} | set(OF_HTTP)


@pytest.mark.parametrize("slug", PROBLEMS)
def test_a_class_is_named_as_its_type(slug: str) -> None:
    assert PROBLEMS[slug].__name__ == "".join(part.capitalize() for part in slug.split("-"))


def test_the_fake_service_refuses_with_the_same_statuses() -> None:
    assert {kind.slug: kind.status for kind in SERVED_KINDS} | OF_HTTP == STATUSES


def test_the_tree_that_is_drawn_is_the_tree() -> None:
    drawn = set(re.findall(r"[A-Z]\w+", (errors.__doc__ or "").split("\n\n")[1]))
    kinds = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert kinds <= drawn


def test_what_is_said_is_what_is_raised() -> None:
    error = answers.problem_of(
        reply(
            413,
            b'{"type":"urn:clicv2:problem:image-too-large","title":"t","status":413,"detail":"too many pixels",'
            b'"instance":"urn:clicv2:request:abc","limit":"pixels","maximum":5,"actual":7}',
            content_type="application/problem+json; charset=utf-8",
        )
    )
    assert type(error) is errors.ImageTooLarge
    assert isinstance(error, errors.BadPicture)
    assert str(error) == "too many pixels"
    assert error.request_id == "abc"
    assert error.facts == {"limit": "pixels", "maximum": 5, "actual": 7}
    assert not error.retryable
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301  # as a pool of processes does it
    assert type(copy) is type(error)
    assert (copy.document, str(copy)) == (error.document, str(error))


def test_a_type_that_is_newer_than_the_client_is_a_problem_all_the_same() -> None:
    document = ProblemDocument(type=PROBLEM_PREFIX + "too-beautiful", status=503, detail="look away")
    error = answers.problem_of(
        reply(503, document.model_dump_json().encode(), content_type="application/problem+json", retry_after="7")
    )
    assert type(error) is Problem
    assert (str(error), error.status, error.retry_after_s, error.retryable) == ("look away", 503, 7.0, True)


@pytest.mark.parametrize("content", [b"<html>Bad Gateway</html>", b"", b'{"status": 200}', b"[]"])
@pytest.mark.parametrize("media_type", ["text/html", "application/problem+json"])
def test_what_a_proxy_says_is_a_problem_by_its_status(content: bytes, media_type: str) -> None:
    error = answers.problem_of(reply(502, content, content_type=media_type))
    assert type(error) is Problem
    assert (error.status, error.type, error.retryable) == (502, "about:blank", True)
    assert "Bad Gateway" in str(error)


@pytest.mark.parametrize("status", range(300, 600))
def test_only_what_passes_is_retried(status: int) -> None:
    assert answers.problem_of(reply(status)).retryable == (status in {429, 502, 503, 504})


@pytest.mark.parametrize(
    ("upstream", "retryable"), [(None, True), (404, False), (403, False), (500, True), (503, True), (429, True)]
)
def test_a_host_that_says_404_is_not_asked_again(upstream: int | None, retryable: bool) -> None:
    facts = {} if upstream is None else {"upstream_status": upstream}
    for status in (502, 422):  # that of older services, and of newer ones
        document = ProblemDocument.model_validate({"type": PROBLEM_PREFIX + "fetch-failed", "status": status, **facts})
        error = errors.problem(document)
        assert isinstance(error, errors.FetchFailed)
        assert (error.upstream_status, error.retryable) == (upstream, retryable and status == 502)


def test_the_services_deadline_is_the_callers() -> None:
    assert issubclass(errors.DeadlineExceeded, errors.TimedOut)
