"""The embedded backend: ONNX Runtime on the CPU, in this process."""

import asyncio
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
    """Two sessions over one model file: a narrow one for calls side by side, a wide one for a lone picture.

    A session's `run` may be called from many threads at once. With one intra-op thread each call
    computes on its caller's core, so the narrow session fills every core under load; a picture with
    nobody beside it gets all cores instead (measured on two: 1.7 ms for 2.9, at 5 % more CPU).
    Threads that spin while they wait would take the cores from the decoders.
    """

    def __init__(self, version: ModelVersion, threads: int) -> None:
        """Load and warm up. Raises ContractError if the model file is not what its manifest says."""
        self._manifest = version.manifest
        self._threads = threads
        self._narrow = _open(version, threads=1)
        self._wide = _open(version, threads) if threads > 1 else self._narrow
        self._running = 0
        _check(self._narrow, version)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="infer")
        spec = version.manifest.preprocess
        blank = np.zeros((1, spec.height, spec.width, 3), np.uint8)
        for session in (self._narrow, self._wide):
            try:
                self._run(session, blank)
            except BackendError as error:
                raise ContractError(f"{version.model_file} cannot run: {error}") from error

    @property
    def manifest(self) -> Manifest:
        return self._manifest

    @property
    def slots(self) -> int:
        return self._threads

    async def infer(self, images: Pixels) -> Predictions:
        session = self._wide if len(images) == 1 and self._running == 0 else self._narrow
        try:
            call = asyncio.get_running_loop().run_in_executor(self._pool, self._run, session, images)
        except RuntimeError as error:  # the pool takes nothing after `close`
            raise BackendDown("the backend is closed") from error
        self._running += 1
        try:
            return await call
        finally:
            self._running -= 1

    async def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self, session: onnxruntime.InferenceSession, images: Pixels) -> Predictions:
        try:
            return Predictions(*session.run(contract.OUTPUTS, {contract.INPUT: images}))
        except Exception as error:  # ONNX Runtime raises a dozen classes of its own, without a common base
            raise BackendError(f"ONNX Runtime: {error}") from error


def _open(version: ModelVersion, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
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
