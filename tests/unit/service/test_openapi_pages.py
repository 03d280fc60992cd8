"""docs/openapi.json and docs/errors.md are what the code says, and say all that a new user has to know."""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from service.routes import document, problems

ROOT = Path(__file__).parents[3]
SCHEMA: dict[str, Any] = json.loads((ROOT / "docs/openapi.json").read_text())
PASSING = {"429", "503", "504"}


def pages() -> dict[Path, str]:
    """By the script that `make schema` runs."""
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs/reference.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return dict(module.pages())


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in SCHEMA["paths"].items():
        for method, operation in methods.items():
            yield f"{method} {path}", operation


def contents() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for name, operation in operations():
        for status, response in operation["responses"].items():
            for media_type, content in response.get("content", {}).items():
                yield f"{name} {status}", media_type, content


def shown(content: dict[str, Any]) -> list[Any]:
    return [content["example"]] if "example" in content else [each["value"] for each in content["examples"].values()]


def test_the_pages_are_as_the_code_makes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLICV2_DEADLINE_S", "7")  # of whoever runs this: no part of the schema
    for page, text in pages().items():
        assert page.read_text() == text, f"{page.relative_to(ROOT)} is out of date: run `make schema`"


def test_the_schema_is_valid() -> None:
    validate(SCHEMA)
    assert SCHEMA["openapi"].startswith("3.1.")
    assert SCHEMA["info"]["description"]


def test_every_operation_is_described() -> None:
    ids = [operation["operationId"] for _, operation in operations()]
    assert len(ids) == len(set(ids)) >= 10
    described = {tag["name"] for tag in SCHEMA["tags"]}
    for name, operation in operations():
        assert operation["summary"], name
        assert "```sh\ncurl " in operation["description"], f"{name}: give it a call in service/routes/examples.py"
        assert set(operation["tags"]) <= described, f"{name}: describe its tag in service/routes/document.py"
        assert "security" in operation, name
        for parameter in operation["parameters"]:
            assert parameter["description"], f"{name}: {parameter['name']}"


def test_every_answer_has_an_example_that_is_true_to_its_schema() -> None:
    for where, media_type, content in contents():
        if media_type.startswith("image/"):
            continue  # JSON holds no pictures
        schema = content["schema"] | {"components": SCHEMA["components"]}
        assert shown(content), f"{where} {media_type}"
        for value in shown(content):
            Draft202012Validator(schema).validate(value)


def test_every_answer_has_its_headers() -> None:
    for name, operation in operations():
        for status, response in operation["responses"].items():
            headers = response["headers"]
            assert "X-Request-ID" in headers
            assert ("Link" in headers) == (status >= "400"), f"{name} {status}"
            assert ("Retry-After" in headers) == (status in PASSING), f"{name} {status}"
            assert ("WWW-Authenticate" in headers) == (status == "401" or (status == "403" and "metrics" in name))
            for header in headers.values():
                Draft202012Validator(header["schema"]).validate(header["example"])
    score = SCHEMA["paths"]["/v1/complexity"]["post"]
    assert {"ETag", "Cache-Control", "Vary", "Cache-Status", "RateLimit"} <= set(score["responses"]["200"]["headers"])
    assert {"Idempotency-Key", "X-Request-Timeout", "If-None-Match", "Cache-Control", "X-Request-ID"} <= {
        parameter["name"] for parameter in score["parameters"]
    }


def test_every_problem_is_shown_by_some_operation() -> None:
    beyond = {"method-not-allowed", "malformed-request", "headers-too-large", "headers-timeout"}  # of no operation
    items = {"bad-entry"}  # of a batch's pictures, never of the batch
    seen = {slug for _, media_type, content in contents() if "problem" in media_type for slug in content["examples"]}
    assert {kind.slug for kind in problems.kinds()} - seen == beyond | items


def test_problems_share_one_schema() -> None:
    for _, media_type, content in contents():
        if media_type == problems.MEDIA_TYPE:
            assert content["schema"] == {"$ref": "#/components/schemas/ProblemDocument"}


def test_where_keys_are_wanted_the_schema_does_not_say_that_none_will_do() -> None:
    optional = {"/v1/x": {"post": {"operationId": "x", "tags": ["models"], "description": "", "responses": {}}}}
    schema = {"info": {}, "paths": optional}
    document.describe(schema, guarded=True)
    assert optional["/v1/x"]["post"]["security"] == [{"bearer": []}, {"apiKey": []}]


def test_the_page_of_errors_has_a_section_for_each() -> None:
    page = (ROOT / "docs/errors.md").read_text()
    for kind in problems.kinds():
        assert f"\n## {kind.slug}\n\n`{kind.type}`, status {kind.status}: {kind.title}.\n" in page
        assert f"| [`{kind.slug}`](#{kind.slug}) | {kind.status} |" in page
