"""The client's results are what the service's schema says: nothing missing, nothing asked that need not be there."""

import pytest
from clicv2_client import calls, results
from clicv2_client.results import Complexity, Grid, JobPage, Rendering
from pydantic import BaseModel

from service import schemas
from service.routes import examples, job_examples

PAIRS = [
    (results.ModelName, schemas.ModelName),
    (results.ImageFacts, schemas.ImageFacts),
    (results.Grid, schemas.Grid),
    (results.Grid, schemas.DifferenceGrid),
    (results.Rendering, schemas.Rendering),
    (results.Rendering, schemas.DifferenceRendering),
    (results.Timings, schemas.Timings),
    (results.Complexity, schemas.Complexity),
    (results.ComparedPicture, schemas.ComparedPicture),
    (results.Difference, schemas.Difference),
    (results.Comparison, schemas.Comparison),
    (results.Figure, schemas.FigureFacts),
    (results.Model, schemas.ModelFacts),
    (results.Models, schemas.ModelList),
    (results.JobCounts, schemas.JobCounts),
    (results.Webhook, schemas.WebhookFacts),
    (results.Job, schemas.JobFacts),
    (results.JobItem, schemas.BatchItem),
    (results.Batch, schemas.Batch),
    (results.BatchCounts, schemas.Counts),
    (results.PageFacts, schemas.PageFacts),
    (results.JobPage, schemas.JobPage),
    (results.JobEvent, schemas.JobEvent),
]
# Of the client alone: what the stream's frame says of an event; and of a picture, that it may be of a difference.
OURS = {"JobEvent": {"kind", "id"}, "Rendering": {"scale"}}


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=lambda each: each.__name__)
def test_members_are_the_schemas(ours: type[BaseModel], theirs: type[BaseModel]) -> None:
    assert set(theirs.model_fields) <= set(ours.model_fields)
    assert set(ours.model_fields) - set(theirs.model_fields) <= OURS.get(ours.__name__, set())
    for name, field in theirs.model_fields.items():
        if not field.is_required() and field.default is None:
            assert not ours.model_fields[name].is_required(), f"{name} may be missing"


@pytest.mark.parametrize(
    ("options", "query"),
    [
        (calls.ScoreOptions, schemas.ComplexityQuery),
        (calls.CompareOptions, schemas.CompareQuery),
        (calls.JobOptions, schemas.JobQuery),
    ],
    ids=lambda each: each.__name__,
)
def test_whatever_can_be_asked_for_is_an_option(options: type, query: type[BaseModel]) -> None:
    assert set(options.__annotations__) == set(query.model_fields)


def test_choices_are_the_services() -> None:
    assert results.HeatmapKind == schemas.HeatmapKind
    assert results.DifferenceKind == schemas.DifferenceKind
    assert results.Colormap == schemas.Colormap


@pytest.mark.parametrize("example", [examples.COMPLEXITY, examples.WITH_GRID, examples.WITH_PICTURE])
def test_answers_are_read(example: dict[str, object]) -> None:
    found = Complexity.model_validate(example)
    assert found.score == example["score"]
    assert isinstance(found.heatmap, Grid | Rendering) == ("heatmap" in example)
    if isinstance(found.heatmap, Rendering):
        assert found.heatmap.data.startswith(b"\x89PNG"), "the file itself"
    assert Complexity.model_validate_json(found.model_dump_json()) == found


def test_other_answers_are_read() -> None:
    assert results.Comparison.model_validate(examples.COMPARISON).pictures[1].rank == 1
    assert results.Model.model_validate(examples.MODEL).grid == (22, 22)
    page = JobPage.model_validate(job_examples.DONE)
    assert page.ended
    assert [item.result is None for item in page.results] == [False, True]
    assert type(page.results[1].error).__name__ == "CorruptImage"


def test_a_newer_service_is_understood() -> None:
    newer = {
        **examples.WITH_GRID,
        "beauty": 0.3,
        "image": {**examples.COMPLEXITY["image"], "depth": 8},
        "cache": "lent",
    }
    found = Complexity.model_validate(newer)
    assert found.cache == "lent"
    assert not hasattr(found, "beauty")


def test_results_do_not_change() -> None:
    found = Complexity.model_validate(examples.COMPLEXITY)
    with pytest.raises(ValueError, match="frozen"):
        found.score = 1.0  # type: ignore[misc]
    assert hash(found)
