"""A route's query parameters, read by hand: FastAPI takes 30 us for a model of six, this one when there are none."""

from typing import Any, Generic, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.requests import Request

QueryT = TypeVar("QueryT", bound=BaseModel)


class QueryOf(Generic[QueryT]):
    """Reads a frozen model, each of whose fields has a default, from a request's query.

    Attributes:
        parameters: of the operation, for OpenAPI.
    """

    def __init__(self, model: type[QueryT]) -> None:
        self._model = model
        self._default = model()
        self.parameters = _describe(model)

    def __call__(self, request: Request) -> QueryT:
        """Raises RequestValidationError, as FastAPI does."""
        if not request.scope["query_string"]:
            return self._default
        try:
            return self._model.model_validate(dict(request.query_params))
        except ValidationError as error:
            raise RequestValidationError([each | {"loc": ("query", *each["loc"])} for each in error.errors()]) from None


def _describe(model: type[BaseModel]) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = []
    for name, schema in model.model_json_schema()["properties"].items():
        described = {"name": name, "in": "query", "required": False, "description": schema.pop("description")}
        if "examples" in schema:
            described["example"] = schema.pop("examples")[0]
        if "anyOf" in schema:  # X | None: a query cannot say null, one leaves the parameter out
            schema = next(each for each in schema["anyOf"] if each.get("type") != "null")
        parameters.append(described | {"schema": schema})
    return parameters
