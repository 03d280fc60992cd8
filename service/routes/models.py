"""GET /v1/models: which model answers, and how good it is by its own manifest."""

from typing import Annotated

from fastapi import APIRouter, Path

from clicv2.contract import Manifest
from service.catalog import Catalog
from service.errors import InvalidParameter, UnknownModel
from service.routes import examples
from service.routes.problems import responses
from service.schemas import FigureFacts, ModelFacts, ModelList


def routes(catalog: Catalog) -> APIRouter:
    router = APIRouter(tags=["models"])

    @router.get(
        "/v1/models",
        operation_id="list_models",
        summary="List the models that are served",
        responses={200: {"content": {"application/json": {"example": {"models": [examples.MODEL]}}}}},
    )
    async def list_models() -> ModelList:
        """There is one; all that is said of it is what `/v1/models/{name}` says."""
        return ModelList(models=[_facts(catalog.current)])

    @router.get(
        "/v1/models/{name}",
        operation_id="get_model",
        summary="Describe a model",
        responses={
            200: {"content": {"application/json": {"example": examples.MODEL}}},
            **responses(UnknownModel, InvalidParameter),
        },
    )
    async def get_model(
        name: Annotated[str, Path(description="`NAME`, or `NAME:VERSION`.", examples=["clicv2", "clicv2:1"])],
    ) -> ModelFacts:
        """The manifest beside the model: how it was made, and how good it is by its own figures."""
        served = catalog.current
        if name not in (served.name, f"{served.name}:{served.version}"):
            raise UnknownModel(f"no model {name!r} is served, only '{served.name}:{served.version}'")
        return _facts(served)

    return router


def _facts(manifest: Manifest) -> ModelFacts:
    spec = manifest.preprocess
    return ModelFacts(
        name=manifest.name,
        version=manifest.version,
        method=manifest.method,
        input=(spec.height, spec.width, 3),
        grid=manifest.grid,
        embedding_size=manifest.embedding_size,
        fingerprint=manifest.fingerprint,
        sha256=manifest.sha256,
        preprocess=dict(spec.to_dict()),
        recipe=dict(manifest.recipe),
        data=dict(manifest.data),
        calibration=dict(manifest.calibration),
        reference=list(manifest.reference),
        figures={
            name: FigureFacts(value=figure.value, low=figure.low, high=figure.high)
            for name, figure in manifest.figures.items()
        },
        measured=dict(manifest.measured),
    )
