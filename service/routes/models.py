"""GET /v1/models: which model answers, and how good it is by its own manifest."""

from fastapi import APIRouter

from clicv2.contract import Manifest
from service.catalog import Catalog
from service.errors import UnknownModel
from service.routes.problems import responses
from service.schemas import FigureFacts, ModelFacts, ModelList


def routes(catalog: Catalog) -> APIRouter:
    router = APIRouter(tags=["models"])

    @router.get("/v1/models", operation_id="list_models", summary="List the models that are served")
    async def list_models() -> ModelList:
        return ModelList(models=[_facts(catalog.current)])

    @router.get(
        "/v1/models/{name}", operation_id="get_model", summary="Describe a model", responses=responses(404, 422)
    )
    async def get_model(name: str) -> ModelFacts:
        if name != catalog.current.name:
            raise UnknownModel(f"no model {name!r} is served, only {catalog.current.name!r}")
        return _facts(catalog.current)

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
        data=dict(manifest.data),
        figures={
            name: FigureFacts(value=figure.value, low=figure.low, high=figure.high)
            for name, figure in manifest.figures.items()
        },
    )
