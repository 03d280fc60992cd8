"""The model for Triton's python backend: model.onnx beside this file, on every core that there is.

Exported with each version (`clicv2-train export`), run by Triton's stub process; imports only what that
has. Tensors pass as DLPack from Triton to ONNX Runtime and back, never through numpy: with numpy 2 the
stub's own conversion answers HTTP 200 with empty outputs, and numpy's DLPack capsules, which the stub
marks in a way of its own, print a traceback each.
"""

from __future__ import annotations  # the module below has its classes only once the model runs

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import onnxruntime
import triton_python_backend_utils as triton

INPUT = "image"
OUTPUTS = ("score", "entropy", "heatmap", "embedding")
FINGERPRINT_KEY = "preprocess_fingerprint"


class TritonPythonModel:
    """One session whose `run` is called from as many threads as there are cores, with one intra-op thread each."""

    def initialize(self, args: dict[str, str]) -> None:
        """Raises ValueError if the file was exported for other preprocessing: older versions then stay served."""
        folder = Path(args["model_repository"]) / args["model_version"]
        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
        expected = json.loads(args["model_config"])["parameters"][FINGERPRINT_KEY]["string_value"]
        actual = self.session.get_modelmeta().custom_metadata_map.get(FINGERPRINT_KEY)
        if actual != expected:
            raise ValueError(f"{folder} was exported for the preprocessing {actual}, its config says {expected}")
        # What a container may use of its cores is not seen here, so whoever limits it says so.
        cores = int(os.environ.get("CLICV2_THREADS", "0")) or len(os.sched_getaffinity(0))
        self.pool = ThreadPoolExecutor(cores, thread_name_prefix="infer")
        self.idle = threading.Semaphore(cores)

    def execute(self, requests: list[triton.InferenceRequest]) -> None:
        """Hand requests to threads; answers leave by each request's sender. Returns when a thread is idle."""
        for request in requests:
            self.idle.acquire()
            self.pool.submit(self.answer, request, request.get_response_sender())
        # Triton gives the next request when this returns: what no thread could take waits in Triton's own
        # queue, from which it can be cancelled.
        self.idle.acquire()
        self.idle.release()

    def answer(self, request: triton.InferenceRequest, sender: triton.InferenceResponseSender) -> None:
        try:
            sender.send(self.infer(request), flags=triton.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        finally:
            self.idle.release()

    def infer(self, request: triton.InferenceRequest) -> triton.InferenceResponse:
        try:
            image = onnxruntime.OrtValue.from_dlpack(triton.get_input_tensor_by_name(request, INPUT))
            values = self.session.run_with_ort_values(OUTPUTS, {INPUT: image})
            outputs = [triton.Tensor.from_dlpack(n, value) for n, value in zip(OUTPUTS, values, strict=True)]
            return triton.InferenceResponse(outputs)
        except Exception as error:  # noqa: BLE001  # whatever it is, this request's caller must hear of it
            return triton.InferenceResponse(error=triton.TritonError(f"ONNX Runtime: {error}"))

    def finalize(self) -> None:
        self.pool.shutdown()
