"""The config files that ship are those that export renders, and mean in Triton what the contract says."""

from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_model
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from clicv2 import contract, triton
from clicv2.contract import Manifest

ROOT = Path(__file__).parents[3]
SHIPPED = ROOT / "model_repository/clicv2"
PYTHON_MODEL = ROOT / "training/templates/triton_model.py"

CONFIGS = [triton.gpu_config, triton.cpu_config]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return contract.open_version(tiny_model.write(tmp_path_factory.mktemp("model")) / "clicv2").manifest


def parse(text: str) -> model_config_pb2.ModelConfig:
    return text_format.Parse(text, model_config_pb2.ModelConfig())


@pytest.mark.parametrize("path", [triton.GPU_CONFIG, triton.CPU_CONFIG])
def test_what_ships_is_what_is_rendered(path: str) -> None:
    expected = triton.configs(contract.open_version(SHIPPED).manifest)[path]
    assert (SHIPPED / path).read_text() == expected, "render it again with `clicv2-train export`"


def test_each_version_that_ships_has_the_model_for_the_python_backend() -> None:
    versions = list(SHIPPED.glob("[1-9]*"))
    assert versions
    for version in versions:
        assert (version / triton.PYTHON_MODEL).read_bytes() == PYTHON_MODEL.read_bytes()


def test_the_python_backends_model_keeps_the_contract() -> None:
    """It runs where `clicv2` cannot be imported, so it repeats the names."""
    source = PYTHON_MODEL.read_text()
    assert f'INPUT = "{contract.INPUT}"' in source
    assert f"OUTPUTS = {contract.OUTPUTS}".replace("'", '"') in source
    assert f'FINGERPRINT_KEY = "{contract.FINGERPRINT_KEY}"' in source
    assert f'"{contract.MODEL_FILE}"' in source


@pytest.mark.parametrize("render", CONFIGS)
def test_tensors_and_fingerprint(render: Callable[[Manifest], str], manifest: Manifest) -> None:
    config = parse(render(manifest))
    (image,) = config.input
    side, grid = tiny_model.SIDE, tiny_model.GRID
    assert (image.name, image.data_type, list(image.dims)) == (
        contract.INPUT,
        model_config_pb2.TYPE_UINT8,
        [side, side, 3],
    )
    assert tuple(output.name for output in config.output) == contract.OUTPUTS
    assert {output.data_type for output in config.output} == {model_config_pb2.TYPE_FP32}
    assert [list(output.dims) for output in config.output] == [[1], [1], [grid, grid], [grid * grid]]
    # The graph's own shapes, without the batch: [B] is reshaped from and to [B, 1].
    assert [output.HasField("reshape") for output in config.output] == [True, True, False, False]
    assert config.parameters[contract.FINGERPRINT_KEY].string_value == manifest.fingerprint
    assert config.max_batch_size == triton.MAX_BATCH_SIZE
    assert config.version_policy.latest.num_versions == 1


def test_on_a_gpu(manifest: Manifest) -> None:
    config = parse(triton.gpu_config(manifest))
    assert config.platform == "onnxruntime_onnx"
    assert {group.kind for group in config.instance_group} == {model_config_pb2.ModelInstanceGroup.KIND_GPU}
    assert config.HasField("dynamic_batching")
    assert config.dynamic_batching.max_queue_delay_microseconds == 0
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert (accelerator.name, accelerator.parameters["precision_mode"]) == ("tensorrt", "FP32")
    assert [warm_up.batch_size for warm_up in config.model_warmup] == [1, triton.MAX_BATCH_SIZE]
    for warm_up in config.model_warmup:
        assert list(warm_up.inputs[contract.INPUT].dims) == [tiny_model.SIDE, tiny_model.SIDE, 3]


def test_on_a_cpu(manifest: Manifest) -> None:
    config = parse(triton.cpu_config(manifest))
    assert config.backend == "python"
    assert {group.kind for group in config.instance_group} == {model_config_pb2.ModelInstanceGroup.KIND_CPU}
    assert not config.HasField("dynamic_batching")  # a batch is no faster there than one picture after the other
