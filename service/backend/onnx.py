"""The embedded backend: ONNX Runtime on the CPU, in this process."""

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime

from clicv2 import contract
from clicv2.contract import Manifest, ModelVersion
from clicv2.errors import ContractError
from clicv2.imaging import Pixels
from service.backend.protocol import BackendDown, BackendError
from service.prediction import Predictions


class OnnxBackend:
    """One session, whose `run` may be called from many threads at once, with one intra-op thread.

    So each call computes on its caller's core and load fills every core. A lone picture on two
    cores does not gain enough to have more threads (measured on the first shipped model: 11.2 ms
    for 12.2, at 47 % more CPU), and threads that spin while they wait would take the cores from the
    decoders.
    """

    def __init__(self, version: ModelVersion, threads: int) -> None:
        """Load and warm up. Raises ContractError if the model file is not what its manifest says."""
        self._manifest = version.manifest
        self._threads = threads
        self._session = _open(version)
        _check(self._session, version)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="infer")
        spec = version.manifest.preprocess
        try:
            self._run(np.zeros((1, spec.height, spec.width, 3), np.uint8))
        except BackendError as error:
            raise ContractError(f"{version.model_file} cannot run: {error}") from error

    @property
    def manifest(self) -> Manifest:
        return self._manifest

    @property
    def slots(self) -> int:
        return self._threads

    @property
    def healthy(self) -> bool:
        return True  # what could fail here fails for one picture, or with the process

    @property
    def events(self) -> Mapping[str, int]:
        return {}

    async def heal(self) -> None:
        pass

    async def infer(self, images: Pixels) -> Predictions:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._run, images)
        except RuntimeError as error:  # the pool takes nothing after `close`
            raise BackendDown("the backend is closed") from error

    async def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self, images: Pixels) -> Predictions:
        try:
            return Predictions(self._manifest.version, *self._session.run(contract.OUTPUTS, {contract.INPUT: images}))
        except Exception as error:  # ONNX Runtime raises a dozen classes of its own, without a common base
            raise BackendError(f"ONNX Runtime: {error}") from error


def _open(version: ModelVersion) -> onnxruntime.InferenceSession:
    onnxruntime.disable_telemetry_events()  # nothing here calls home
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(version.model_file, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # see OnnxBackend._run
        raise ContractError(f"{version.model_file} cannot be loaded: {error}") from error


def _check(session: onnxruntime.InferenceSession, version: ModelVersion) -> None:
    """Raises ContractError unless the graph was exported for this preprocessing and has the contract's tensors."""
    expected = version.manifest.fingerprint
    actual = session.get_modelmeta().custom_metadata_map.get(contract.FINGERPRINT_KEY)
    if actual != expected:
        raise ContractError(
            f"{version.model_file} was exported for the preprocessing {actual}, "
            f"its manifest and this code say {expected}"
        )
    inputs = [tensor.name for tensor in session.get_inputs()]
    outputs = {tensor.name for tensor in session.get_outputs()}
    if inputs != [contract.INPUT] or not outputs.issuperset(contract.OUTPUTS):
        raise ContractError(f"{version.model_file} has the tensors {inputs} -> {sorted(outputs)}, not the contract's")
