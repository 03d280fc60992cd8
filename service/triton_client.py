"""Triton's gRPC protocol, as much of it as is used here, with types."""

import asyncio
import json
import math
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

import grpc
import numpy as np
from google.protobuf import json_format
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from clicv2 import contract
from clicv2.contract import FINGERPRINT_KEY, Float32
from clicv2.imaging import Pixels
from service import tracing

_Response = TypeVar("_Response")

_OPTIONS = (
    ("grpc.max_send_message_length", 64 << 20),  # 32 pictures of 1 megapixel; gRPC's own limit is 4 MiB
    ("grpc.max_receive_message_length", 64 << 20),
    # A connection of one's own: gRPC would share a broken one, and its waiting time, with the next channel.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.lb_policy_name", "round_robin"),  # over all servers that the name stands for; by default the first has all
    ("grpc.enable_http_proxy", 0),  # an HTTP proxy of the environment is not meant for what is next door
    # No keepalive: Triton answers frequent pings by hanging up, and whoever waits sees to it that nobody waits long.
)

# Of a span, by OpenTelemetry's conventions.
_CALL = {"rpc.system.name": "grpc", "rpc.method": "inference.GRPCInferenceService/ModelInfer"}


class Kind(StrEnum):
    """What a failure means for the next call.

    BAD_REQUEST: this request is wrong.
    INTERNAL: the model failed, perhaps because of the request.
    FULL: the model's queue holds as much as it may.
    TIMEOUT: no answer in time.
    UNKNOWN: model or version are not loaded.
    FORGOTTEN: the shared memory is not registered, or no longer: Triton was started anew.
    STUB_DEAD: the process behind the python backend is gone; Triton does not start another by itself.
    NO_CONTROL: models are not loaded and unloaded by request (--model-control-mode=explicit is missing).
    EMPTY: an answer without contents.
    UNREACHABLE: Triton is not there, or hung up.
    """

    BAD_REQUEST = "bad request"
    INTERNAL = "internal"
    FULL = "full"
    TIMEOUT = "timeout"
    UNKNOWN = "unknown"
    FORGOTTEN = "forgotten"
    STUB_DEAD = "stub dead"
    NO_CONTROL = "no control"
    EMPTY = "empty"
    UNREACHABLE = "unreachable"


class TritonError(Exception):
    """A call failed.

    Attributes:
        kind: what it means for the next.
    """

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(f"Triton ({kind}): {message}")
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output as the config states it: `dims` without the batch's."""

    kind: str
    dims: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Config:
    """A loaded model's config.

    Attributes:
        max_batch_size: pictures that a request may hold.
        fingerprint: of the preprocessing that the model expects; "" when it does not say.
        inputs, outputs: by name.
        versions: those that its policy names; empty when it is the newest.
        backend: which of Triton's runs it.
        text: the whole as JSON, as `load` takes it.
    """

    max_batch_size: int
    fingerprint: str
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    versions: tuple[int, ...]
    backend: str
    text: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of Triton's index.

    Attributes:
        version: 0 for a model of which no version was ever loaded.
        state: e.g. READY; "" for never loaded.
        reason: why it is not ready, in Triton's words.
    """

    model: str
    version: int
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class Shared:
    """Pictures, uint8 [B, H, W, 3], at the beginning of a region of shared memory that is registered."""

    region: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Reply:
    """An inference's outputs by name, as float32 [B, ...], and the version that made them."""

    version: int
    outputs: Mapping[str, Float32]


class TritonClient:
    """One connection, made at the first call. Every method raises TritonError."""

    def __init__(self, url: str) -> None:
        """`url` is host:port of Triton's gRPC. To be called inside the event loop."""
        self._channel = grpc.aio.insecure_channel(url, options=_OPTIONS)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    async def close(self) -> None:
        """Hang up; calls that wait for an answer end as UNREACHABLE."""
        await self._channel.close()

    async def live(self, timeout_s: float) -> None:
        await self._answer(self._stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=timeout_s))

    async def infer(self, model: str, version: int | None, images: Pixels | Shared, timeout_s: float) -> Reply:
        """Run a model on uint8 [B, H, W, 3]; version None: the newest that is loaded."""
        request = service_pb2.ModelInferRequest(model_name=model, model_version=_text(version))
        tensor = request.inputs.add(name=contract.INPUT, datatype="UINT8")
        tensor.shape.extend(images.shape)
        if isinstance(images, Shared):
            tensor.parameters["shared_memory_region"].string_param = images.region
            tensor.parameters["shared_memory_byte_size"].int64_param = math.prod(images.shape)
        else:
            request.raw_input_contents.append(images.tobytes())
        for name in contract.OUTPUTS:
            request.outputs.add(name=name)
        with tracing.span("triton", {**_CALL, "clicv2.batch_size": images.shape[0]}, "client"):
            traced = (("traceparent", parent),) if (parent := tracing.traceparent()) else None
            call = self._stub.ModelInfer(request, timeout=timeout_s, metadata=traced)
            return _reply(await self._answer(call))

    async def config(self, model: str, version: int | None, timeout_s: float) -> Config:
        request = service_pb2.ModelConfigRequest(name=model, version=_text(version))
        return _config((await self._answer(self._stub.ModelConfig(request, timeout=timeout_s))).config)

    async def index(self, timeout_s: float) -> Sequence[Entry]:
        """What the repository holds, as far as Triton has looked."""
        answer = await self._answer(self._stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(), timeout=timeout_s))
        return [Entry(m.name, int(m.version or 0), m.state, m.reason) for m in answer.models]

    async def load(self, model: str, timeout_s: float, config: str | None = None) -> None:
        """Load or load again what has changed; `config` as JSON replaces that of the repository."""
        request = service_pb2.RepositoryModelLoadRequest(model_name=model)
        if config is not None:
            request.parameters["config"].string_param = config
        await self._answer(self._stub.RepositoryModelLoad(request, timeout=timeout_s))

    async def unload(self, model: str, timeout_s: float) -> None:
        """Unload every version. Returns at once; requests that it has are answered first."""
        request = service_pb2.RepositoryModelUnloadRequest(model_name=model)
        await self._answer(self._stub.RepositoryModelUnload(request, timeout=timeout_s))

    async def register(self, region: str, size: int, timeout_s: float) -> None:
        """Let Triton map the POSIX shared memory /`region` of `size` bytes, under the same name."""
        request = service_pb2.SystemSharedMemoryRegisterRequest(name=region, key=f"/{region}", byte_size=size)
        await self._answer(self._stub.SystemSharedMemoryRegister(request, timeout=timeout_s))

    async def unregister(self, region: str, timeout_s: float) -> None:
        """Let Triton unmap it. INTERNAL while a request still uses it; nothing happens to one that is not known."""
        request = service_pb2.SystemSharedMemoryUnregisterRequest(name=region)
        await self._answer(self._stub.SystemSharedMemoryUnregister(request, timeout=timeout_s))

    async def regions(self, timeout_s: float) -> Sequence[str]:
        """Names of all that are registered, whoever did it."""
        request = service_pb2.SystemSharedMemoryStatusRequest()
        return list((await self._answer(self._stub.SystemSharedMemoryStatus(request, timeout=timeout_s))).regions)

    async def _answer(self, call: Awaitable[_Response]) -> _Response:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise TritonError(kind_of(error.code(), error.details() or ""), error.details() or str(error)) from None
        except grpc.aio.UsageError as error:  # called after `close`
            raise TritonError(Kind.UNREACHABLE, str(error)) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task and task.cancelling():
                raise
            raise TritonError(Kind.UNREACHABLE, "the connection was given up") from None  # `close`, not our caller


def kind_of(code: grpc.StatusCode, details: str) -> Kind:
    """Triton 2.51 has few codes for many things; the rest is in its words."""
    if "Stub process" in details and "is not healthy" in details:
        return Kind.STUB_DEAD
    if "explicit model load / unload" in details:
        return Kind.NO_CONTROL
    if code is grpc.StatusCode.NOT_FOUND and "shared memory region" in details:
        return Kind.FORGOTTEN
    if code is grpc.StatusCode.UNAVAILABLE and "maximum queue size" in details:
        return Kind.FULL
    if code is grpc.StatusCode.UNAVAILABLE and ("is not ready" in details or "unknown model" in details):
        return Kind.UNKNOWN
    return _KINDS.get(code, Kind.INTERNAL)


_KINDS = {
    grpc.StatusCode.INVALID_ARGUMENT: Kind.BAD_REQUEST,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Kind.BAD_REQUEST,  # a message beyond the limit
    grpc.StatusCode.DEADLINE_EXCEEDED: Kind.TIMEOUT,
    grpc.StatusCode.NOT_FOUND: Kind.UNKNOWN,
    grpc.StatusCode.UNAVAILABLE: Kind.UNREACHABLE,
    grpc.StatusCode.CANCELLED: Kind.UNREACHABLE,
    grpc.StatusCode.UNIMPLEMENTED: Kind.UNREACHABLE,  # whatever listens there, it is not Triton
}


def with_versions(config: Config, versions: Sequence[int]) -> str:
    """The config's text with these versions to be served; none: the newest."""
    content = json.loads(config.text)
    newest = {"latest": {"num_versions": 1}}
    content["version_policy"] = {"specific": {"versions": list(versions)}} if versions else newest
    return json.dumps(content)


def _config(config: "model_config_pb2.ModelConfig") -> Config:
    return Config(
        max_batch_size=config.max_batch_size,
        fingerprint=config.parameters[FINGERPRINT_KEY].string_value if FINGERPRINT_KEY in config.parameters else "",
        inputs={tensor.name: _tensor(tensor.data_type, tensor.dims) for tensor in config.input},
        outputs={tensor.name: _tensor(tensor.data_type, tensor.dims) for tensor in config.output},
        versions=tuple(config.version_policy.specific.versions),
        backend=config.backend,
        text=json_format.MessageToJson(config, preserving_proto_field_name=True),
    )


def _tensor(data_type: int, dims: Sequence[int]) -> Tensor:
    return Tensor(model_config_pb2.DataType.Name(data_type), tuple(dims))


def _reply(response: "service_pb2.ModelInferResponse") -> Reply:
    outputs = {}
    if len(response.raw_output_contents) != len(response.outputs):
        raise TritonError(Kind.EMPTY, "an answer whose outputs have no contents")
    for output, content in zip(response.outputs, response.raw_output_contents, strict=True):
        values = np.frombuffer(content, np.float32)
        if output.datatype != "FP32" or values.size != math.prod(output.shape):
            raise TritonError(
                Kind.EMPTY,
                f"{output.name} of the shape {list(output.shape)} came as {len(content)} bytes; "
                "the python backend does this where its model.py meets numpy 2 unprepared",
            )
        outputs[output.name] = values.reshape(tuple(output.shape))
    if missing := set(contract.OUTPUTS) - outputs.keys():
        raise TritonError(Kind.EMPTY, f"an answer without {sorted(missing)}")
    return Reply(int(response.model_version), outputs)


def _text(version: int | None) -> str:
    return "" if version is None else str(version)
