import inspect
import re

import pytest

from clicv2 import errors as image_errors
from service import errors
from service.errors import INTERNAL, PROBLEM_PREFIX, PROBLEMS, RequestError, ServiceError, facts_of, problem_of


def descendants(kind: type[Exception]) -> set[type[Exception]]:
    return {kind}.union(*(descendants(child) for child in kind.__subclasses__()))


def test_every_error_has_a_row() -> None:
    abstract = {ServiceError, RequestError, image_errors.ImageError}
    expected = descendants(ServiceError) | descendants(image_errors.ImageError)
    assert {kind for kind in expected if kind.__module__ in ("service.errors", "clicv2.errors")} - abstract == set(
        PROBLEMS
    )


def test_types_are_stable_uris_and_mean_one_status() -> None:
    statuses: dict[str, int] = {}
    for problem in [*PROBLEMS.values(), INTERNAL]:
        assert re.fullmatch(r"urn:clicv2:problem:[a-z-]+", problem.type)
        assert problem.type.startswith(PROBLEM_PREFIX)
        assert statuses.setdefault(problem.type, problem.status) == problem.status


def test_the_nearest_ancestor_counts() -> None:
    class Special(errors.Draining):
        pass

    assert problem_of(Special()) is PROBLEMS[errors.Draining]
    assert problem_of(ZeroDivisionError()) is INTERNAL


def test_facts() -> None:
    assert facts_of(image_errors.TooLarge("side", 3, 2)) == {"limit": "side", "actual": 3, "maximum": 2}
    assert facts_of(errors.UploadTooLarge(2, 3)) == {"limit": "bytes", "actual": 3, "maximum": 2}
    assert facts_of(errors.UploadTooLarge(2)) == {"limit": "bytes", "maximum": 2}
    assert facts_of(ValueError()) == {}


@pytest.mark.parametrize("module", [errors, image_errors])
def test_the_tree_is_drawn(module: object) -> None:
    drawn = inspect.getdoc(module) or ""
    for kind in PROBLEMS:
        if kind.__module__ == module.__name__:  # type: ignore[attr-defined]
            assert re.search(rf"\+-- {kind.__name__}\b", drawn), kind
