"""The schema that /docs shows: valid, with an example of everything, and every example true to its own schema."""

from collections.abc import Iterator
from typing import Any

import pytest
from api import api
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from scripted import ScriptedBackend

from service.catalog import Catalog
from service.errors import INTERNAL, INVALID_PARAMETER, PROBLEMS, ClientGone
from service.routes import examples

pytestmark = pytest.mark.anyio


@pytest.fixture
async def document(catalog: Catalog, scripted: ScriptedBackend) -> dict[str, Any]:
    async with api(catalog, scripted) as running:
        return running.app.openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method} {path}", operation


def shown(content: dict[str, Any]) -> list[Any]:
    if "example" in content:
        return [content["example"]]
    return [each["value"] for each in content.get("examples", {}).values()]


async def test_it_is_valid(document: dict[str, Any]) -> None:
    validate(document)
    assert "HTTPValidationError" not in str(document), "FastAPI's own, which nobody is ever sent"


async def test_every_answer_has_an_example_that_is_valid(document: dict[str, Any]) -> None:
    checked = 0
    for name, operation in operations(document):
        for status, response in operation["responses"].items():
            for media_type, content in response.get("content", {}).items():  # a 304 has none
                if media_type.startswith("image/"):
                    continue
                found = shown(content)
                assert found, f"{name} {status} {media_type}"
                schema = content["schema"] | {"components": document["components"]}
                for value in found:
                    Draft202012Validator(schema).validate(value)
                    checked += 1
    assert checked > 50


async def test_requests_in_json_have_examples_that_are_valid(document: dict[str, Any]) -> None:
    content = document["paths"]["/v1/complexity"]["post"]["requestBody"]["content"]["application/json"]
    assert len(shown(content)) == 2
    for value in shown(content):
        Draft202012Validator(content["schema"]).validate(value)


async def test_the_problems_are_those_that_can_occur(document: dict[str, Any]) -> None:
    def slugs(path: str, status: str) -> set[str]:
        response = document["paths"][path]["post"]["responses"][status]
        return set(response["content"]["application/problem+json"]["examples"])

    assert slugs("/v1/complexity", "413") == {"image-too-large"}
    assert slugs("/v1/complexity", "422") >= {"corrupt-image", "invalid-parameter", "idempotency-key-reused"}
    assert slugs("/v1/complexity/batch", "413") == {"image-too-large", "too-many-files"}
    assert "corrupt-image" not in slugs("/v1/complexity/batch", "422"), "that is an item's"
    assert slugs("/v1/compare", "429") >= {"overloaded"}


async def test_every_problem_has_a_detail_of_its_own() -> None:
    kinds = {*PROBLEMS.values(), INVALID_PARAMETER, INTERNAL} - {PROBLEMS[ClientGone]}
    assert {kind.slug for kind in kinds} - set(examples.DETAILS) <= NOT_OURS


# Of operations that are described elsewhere.
NOT_OURS: set[str] = set()


async def test_parameters_are_described(document: dict[str, Any]) -> None:
    for path in ("/v1/complexity", "/v1/complexity/batch", "/v1/compare"):
        parameters = {each["name"]: each for each in document["paths"][path]["post"]["parameters"]}
        assert {"X-Request-Timeout", "Idempotency-Key", "X-Request-ID", "model"} <= set(parameters)
        assert all(each.get("description") for each in parameters.values())
    batch = document["paths"]["/v1/complexity/batch"]["post"]["parameters"]
    assert next(each for each in batch if each["name"] == "X-Request-Timeout")["schema"]["maximum"] == 60
