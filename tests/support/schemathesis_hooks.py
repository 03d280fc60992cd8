"""What schemathesis takes for a failure of ours, and is none. Loaded by schemathesis.toml; see there.

No schema can say which bytes are a picture, so a request can be true to the schema and its picture none; and it cannot
say that an Idempotency-Key must not come again with another picture, or which URL leads to a public host.
"""

import schemathesis
from schemathesis import Case, HookContext, Response
from schemathesis.core.failures import AcceptedNegativeData, Failure, ServerError
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation.meta import CoveragePhaseData, CoverageScenario
from schemathesis.openapi.checks import RejectedPositiveData

# How such requests are refused. "invalid-parameter" is not among them: what the schema says of parameters holds.
BEYOND_A_SCHEMA = frozenset(
    {
        "empty-image",
        "unsupported-image",
        "corrupt-image",
        "malformed-upload",
        "idempotency-key-reused",
        "invalid-url",
        "forbidden-url",
        "fetch-failed",
    }
)
# What a caller gets who waits for 0.05 s, the least that X-Request-Timeout may say, and meets a busy machine.
TOO_SHORT = frozenset({"deadline-exceeded", "upload-timeout"})


@schemathesis.hook
def filter_failure(context: HookContext, failure: Failure, case: Case, response: Response) -> bool:
    """Whether a failure is one."""
    if _problem(response) in TOO_SHORT and "X-Request-Timeout" in case.headers:
        return not isinstance(failure, RejectedPositiveData | ServerError)
    if isinstance(failure, RejectedPositiveData):
        return _problem(response) not in BEYOND_A_SCHEMA
    return not (isinstance(failure, AcceptedNegativeData) and (_adds_a_header(case) or _is_a_form_with_a_file(case)))


def _adds_a_header(case: Case) -> bool:
    """One that nobody has asked for is ignored, as HTTP wants it.

    Schemathesis itself forgives that, unless another header is a number, which on the wire is text.
    """
    data = case.meta.phase.data if case.meta else None
    return (
        isinstance(data, CoveragePhaseData)
        and data.scenario is CoverageScenario.OBJECT_UNEXPECTED_PROPERTIES
        and data.parameter_location is ParameterLocation.HEADER
    )


def _is_a_form_with_a_file(case: Case) -> bool:
    """Whatever type the value had: on the wire it is bytes, as any file."""
    return case.media_type == "multipart/form-data" and isinstance(case.body, dict) and "file" in case.body


def _problem(response: Response) -> str | None:
    """The slug of its type."""
    if response.headers.get("content-type") != ["application/problem+json"]:
        return None
    return str(response.json()["type"]).removeprefix("urn:clicv2:problem:")
