"""The loop that the service wraps: decode, resize, infer; no HTTP, no queue, no batches."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import onnxruntime

from clicv2 import contract, imaging
from clicv2.contract import ModelVersion


@dataclass(frozen=True)
class Bare:
    """Attributes: images a second; CPU milliseconds and, per thread, wall milliseconds an image."""

    threads: int
    rate: float
    cpu_ms: float
    wall_ms: float


def measure(version: ModelVersion, data: bytes, threads: int, seconds: float) -> Bare:
    """Run the loop in `threads` threads at once, each on one core."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(version.model_file, options, providers=["CPUExecutionProvider"])
    spec = version.manifest.preprocess

    def once() -> None:
        pixels = imaging.to_model_input(imaging.decode(data, spec).image, spec)
        session.run(contract.OUTPUTS, {contract.INPUT: pixels[None]})

    def loop(until: float) -> int:
        count = 0
        while time.perf_counter() < until:
            once()
            count += 1
        return count

    for _ in range(5):
        once()
    started, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(threads) as pool:
        count = sum(pool.map(loop, [started + seconds] * threads))
    elapsed, cpu = time.perf_counter() - started, time.process_time() - cpu
    return Bare(threads, count / elapsed, cpu / count * 1e3, elapsed * threads / count * 1e3)
