"""The API's reference out of openapi.json, as Markdown that needs no script to be read."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Schema = Mapping[str, Any]  # a piece of an OpenAPI document, which is JSON of many shapes
_REF = "#/components/schemas/"


def markdown(document: Schema) -> str:
    operations = [
        (method, path, operation) for path, item in document["paths"].items() for method, operation in item.items()
    ]
    return "\n".join(
        [
            *_keys(document["components"]["securitySchemes"]),
            *(line for tag in document["tags"] for line in _tag(tag, operations)),
            "## Schemas\n",
            *(line for name, schema in document["components"]["schemas"].items() for line in _schema(name, schema)),
        ]
    )


def _keys(schemes: Schema) -> Iterator[str]:
    yield "## Keys\n"
    yield "A server that wants keys takes one in either of these headers:\n"
    for scheme in schemes.values():
        header = f"`{scheme['name']}: KEY`" if "name" in scheme else "`Authorization: Bearer KEY`"
        yield f"- {header}. {scheme['description']}"
    yield ""


def _tag(tag: Schema, operations: Sequence[tuple[str, str, Schema]]) -> Iterator[str]:
    yield f"## {tag['name'].capitalize()}\n"
    yield f"{tag['description']}\n"
    for method, path, operation in operations:
        if tag["name"] in operation["tags"]:
            yield from _operation(method, path, operation)


def _operation(method: str, path: str, operation: Schema) -> Iterator[str]:
    yield f"### {operation['summary']}\n"
    yield f"**`{method.upper()} {path}`**\n"
    yield f"{_prose(operation.get('description', ''))}\n"
    if parameters := operation.get("parameters"):
        rows = [(f"`{p['name']}`", p["in"], _type(p["schema"]), p.get("description", "")) for p in parameters]
        yield from _table(("Parameter", "In", "Type", "What it is"), rows)
    if body := operation.get("requestBody"):
        yield f"Body: {_prose(body.get('description', ''))}\n"
        yield from _table(
            ("Content-Type", "Type"), [(f"`{name}`", _type(content["schema"])) for name, content in _typed(body)]
        )
    yield from _table(
        ("Status", "Content-Type", "Type", "What it says"),
        [
            (status, " ".join(f"`{name}`" for name, _ in _typed(answer)), _types(answer), answer["description"])
            for status, answer in operation["responses"].items()
        ],
    )
    yield from _example(operation)


def _typed(message: Schema) -> Sequence[tuple[str, Schema]]:
    return [(name, content) for name, content in message.get("content", {}).items()]


def _types(message: Schema) -> str:
    return ", ".join(dict.fromkeys(_type(content.get("schema", {})) for _, content in _typed(message)))


def _example(operation: Schema) -> Iterator[str]:
    """The first example of a success: the others differ by what was asked for."""
    for status, answer in operation["responses"].items():
        examples = answer.get("content", {}).get("application/json", {}).get("examples", {})
        for example in list(examples.values())[:1]:
            yield f"An answer with {status}:\n"
            yield f"```json\n{json.dumps(example['value'], indent=2, ensure_ascii=False)}\n```\n"
            return


def _schema(name: str, schema: Schema) -> Iterator[str]:
    yield f"### {name}\n"
    yield f"{_prose(schema.get('description', ''))}\n"
    required = schema.get("required", ())
    yield from _table(
        ("Member", "Type", "", "What it is"),
        [
            (f"`{member}`", _type(facts), "always" if member in required else "", facts.get("description", ""))
            for member, facts in schema.get("properties", {}).items()
        ],
    )


def _type(schema: Schema) -> str:
    """A schema in a few words, with links to those that have names."""
    if name := schema.get("$ref"):
        name = name.removeprefix(_REF)
        return f"[{name}](#{name.lower()})"
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(_type(choice) for choice in choices if choice.get("type") != "null"))
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        words = ", ".join(f"`{value}`" for value in schema["enum"])
        return words + _default(schema)
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if schema.get("format") == "binary":
        return "a file"
    if schema.get("type") == "object" and "properties" in schema:
        return ", ".join(
            f"`{name}`: {_type(facts)}" for name, facts in schema["properties"].items() if facts.get("type") != "null"
        )
    return f"{schema.get('format', schema.get('type', 'anything'))}{_bounds(schema)}{_default(schema)}"


def _bounds(schema: Schema) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f" {low:g} to {high:g}"
    if low is not None:
        return f" from {low:g}"
    return f" to {high:g}" if high is not None else ""


def _default(schema: Schema) -> str:
    default = schema.get("default")
    return "" if default is None else f"; default `{default if isinstance(default, str) else json.dumps(default)}`"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    if not rows:
        return
    for row in (head, ["---"] * len(head), *rows):
        yield "| " + " | ".join(" ".join(_prose(cell).split()).replace("|", "\\|") for cell in row) + " |"
    yield ""


def _prose(text: str) -> str:
    """Without links to paths of a server: there is none behind this page."""
    return re.sub(r"\[([^\]]*)\]\(/[^)]*\)", r"`\1`", text)
