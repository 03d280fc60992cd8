import json

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from service.triton_client import Config, Kind, TritonError, _reply, kind_of, with_versions

Code = grpc.StatusCode


@pytest.mark.parametrize(
    ("code", "details", "kind"),
    [
        (Code.INVALID_ARGUMENT, "inference request batch-size must be <= 32 for 'clicv2'", Kind.BAD_REQUEST),
        (Code.INTERNAL, "ONNX Runtime: no kernel", Kind.INTERNAL),
        (Code.INTERNAL, "Stub process 'clicv2_0_0' is not healthy.", Kind.STUB_DEAD),
        (Code.UNAVAILABLE, "in ensemble 'x', Exceeds maximum queue size", Kind.FULL),
        (Code.UNAVAILABLE, "Exceeds maximum queue size", Kind.FULL),
        (Code.UNAVAILABLE, "explicit model load / unload is not allowed if polling is enabled", Kind.NO_CONTROL),
        (Code.UNAVAILABLE, "failed to connect to all addresses", Kind.UNREACHABLE),
        (Code.NOT_FOUND, "Request for unknown model: 'clicv2' version 7 is not found", Kind.UNKNOWN),
        (Code.NOT_FOUND, "Unable to find shared memory region: 'clicv2-pictures-1-ab'", Kind.FORGOTTEN),
        (Code.DEADLINE_EXCEEDED, "Deadline Exceeded", Kind.TIMEOUT),
        (Code.UNIMPLEMENTED, "Method not found!", Kind.UNREACHABLE),
        (Code.UNKNOWN, "", Kind.INTERNAL),
    ],
)
def test_what_a_failure_means(code: grpc.StatusCode, details: str, kind: Kind) -> None:
    assert kind_of(code, details) is kind


def response(contents: list[bytes], shape: tuple[int, ...] = (2, 1)) -> service_pb2.ModelInferResponse:
    answer = service_pb2.ModelInferResponse(model_name="clicv2", model_version="3")
    for name in ("score", "entropy", "heatmap", "embedding"):
        answer.outputs.add(name=name, datatype="FP32", shape=shape)
    answer.raw_output_contents.extend(contents)
    return answer


def test_an_answer() -> None:
    content = np.array([0.25, 0.5], np.float32).tobytes()
    reply = _reply(response([content] * 4))
    assert reply.version == 3
    assert reply.outputs["score"].tolist() == [[0.25], [0.5]]


@pytest.mark.parametrize("contents", [[], [b""] * 4, [b"1234"] * 4])
def test_an_answer_without_contents_is_none(contents: list[bytes]) -> None:
    """What the python backend sends, with status OK, where its model meets numpy 2 unprepared."""
    with pytest.raises(TritonError) as caught:
        _reply(response(contents))
    assert caught.value.kind is Kind.EMPTY


def test_versions_in_a_config() -> None:
    text = json.dumps({"name": "clicv2", "version_policy": {"specific": {"versions": ["1"]}}})
    config = Config(32, "", {}, {}, (1,), "python", text)
    assert json.loads(with_versions(config, (2, 3))) == {
        "name": "clicv2",
        "version_policy": {"specific": {"versions": [2, 3]}},
    }
    assert json.loads(with_versions(config, ()))["version_policy"] == {"latest": {"num_versions": 1}}
