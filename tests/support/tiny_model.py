"""A real ONNX model, small enough to be written by a test: the busier a cell, the more complex.

Heatmap: the mean horizontal step of grey levels in each 8 x 8 cell, as logits.
"""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from clicv2 import contract
from clicv2.contract import Manifest
from clicv2.spec import PreprocessSpec

SIDE, CELL = 64, 8
GRID = SIDE // CELL
SPEC = PreprocessSpec(height=SIDE, width=SIDE)
_WORK = 512  # side of the matrices that make a model slow: about 5 ms each on one core


class _Graph:
    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: np.ndarray) -> str:
        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def add(self, operator: str, *inputs: str, to: str = "", **attributes: object) -> str:
        output = to or f"{operator}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def axes(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def number(self, value: float) -> str:
        return self.constant(np.float32(value))


def write(
    repository: Path, *, version: int = 1, work: int = 0, poison: bool = False, fingerprint: str | None = None
) -> Path:
    """Write model and manifest to REPOSITORY/clicv2/VERSION; returns the repository.

    Args:
        work: matrix products a picture, to make the model slow.
        poison: answer NaN for a picture that is wholly black.
        fingerprint: what the ONNX file claims, if not the truth.
    """
    folder = repository / "clicv2" / str(version)
    folder.mkdir(parents=True)
    model = folder / contract.MODEL_FILE
    onnx.save(_model(work, poison, SPEC.fingerprint() if fingerprint is None else fingerprint), model)
    manifest = Manifest(
        name="clicv2",
        version=version,
        method="gradient",
        recipe={},
        data={"pretraining": "none"},
        preprocess=SPEC,
        fingerprint=SPEC.fingerprint(),
        grid=(GRID, GRID),
        embedding_size=GRID * GRID,
        calibration={},
        reference=tuple(np.linspace(0.0, 1.0, 101).tolist()),
    )
    replace(manifest, sha256=hashlib.sha256(model.read_bytes()).hexdigest()).save(folder / contract.MANIFEST_FILE)
    return repository


def _model(work: int, poison: bool, fingerprint: str) -> onnx.ModelProto:
    g = _Graph()
    g.nodes.append(helper.make_node("Cast", [contract.INPUT], ["floats"], to=TensorProto.FLOAT))
    grey = g.add("ReduceMean", "floats", g.axes(3), keepdims=0)  # [B, 64, 64]
    right = g.add("Slice", grey, g.axes(1), g.axes(SIDE), g.axes(2))
    left = g.add("Slice", grey, g.axes(0), g.axes(SIDE - 1), g.axes(2))
    steps = g.add("Pad", g.add("Abs", g.add("Sub", right, left)), g.axes(0, 0, 0, 0, 0, 1))  # [B, 64, 64]
    pooled = g.add("AveragePool", g.add("Unsqueeze", steps, g.axes(1)), kernel_shape=[CELL, CELL], strides=[CELL, CELL])
    cells = g.add("Squeeze", pooled, g.axes(1))  # [B, 8, 8]
    cells = g.add("Sub", g.add("Mul", cells, g.number(0.1)), g.number(2.0))
    brightness = g.add("ReduceMean", grey, g.axes(1, 2), keepdims=1)  # [B, 1, 1]
    if poison:
        cells = g.add("Add", cells, g.add("Mul", g.add("Log", brightness), g.number(0.0)))  # log(0) * 0 is NaN
    if work:
        identity = g.constant(np.eye(_WORK, dtype=np.float32))
        product = g.add("Add", identity, g.add("Mul", brightness, g.number(0.0)))  # [B, 512, 512]
        for _ in range(work):
            product = g.add("MatMul", product, identity)
        nothing = g.add("Mul", g.add("ReduceMean", product, g.axes(1, 2), keepdims=1), g.number(0.0))
        cells = g.add("Add", cells, nothing)
    g.add("Identity", cells, to=contract.HEATMAP)
    mean = g.add("ReduceMean", cells, g.axes(1, 2), keepdims=0)
    g.add("Sigmoid", mean, to=contract.SCORE)
    g.add("Sigmoid", g.add("Mul", mean, g.number(0.5)), to=contract.ENTROPY)
    g.add("Reshape", cells, g.axes(0, GRID * GRID), to=contract.EMBEDDING)
    floats = {
        contract.SCORE: ["B"],
        contract.ENTROPY: ["B"],
        contract.HEATMAP: ["B", GRID, GRID],
        contract.EMBEDDING: ["B", GRID * GRID],
    }
    graph = helper.make_graph(
        g.nodes,
        "gradient",
        [helper.make_tensor_value_info(contract.INPUT, TensorProto.UINT8, ["B", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in floats.items()],
        g.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {contract.FINGERPRINT_KEY: fingerprint})
    onnx.checker.check_model(model)
    return model
