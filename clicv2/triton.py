"""What Triton is told about an exported model: the texts of its config files, rendered from the manifest.

One repository serves both kinds of machine. `config.pbtxt` is for a GPU; `configs/cpu.pbtxt`, which
`tritonserver --model-config-name=cpu` reads instead, runs the same model.onnx by `model.py` beside it.
Format: Triton's ModelConfig as protobuf text. A config speaks for every version of its model, so all
versions of a name share shapes and preprocessing; what differs in them is another model.
"""

from collections.abc import Mapping

from clicv2 import contract
from clicv2.contract import Manifest

GPU_CONFIG = "config.pbtxt"
CPU_CONFIG = "configs/cpu.pbtxt"
PYTHON_MODEL = "model.py"

# Pictures in one request. A GPU gains little beyond it, and 32 x 363 KiB cross the network in one piece.
MAX_BATCH_SIZE = 32
# Requests that wait on a GPU; the next is refused as UNAVAILABLE. Workers hold few calls each, so this is
# reached by somebody else's flood, which must not make ours wait past their deadlines.
MAX_QUEUE_SIZE = 128
# Where TensorRT keeps its engines: building one takes minutes. Put a volume there to keep them.
ENGINE_CACHE = "/tmp/clicv2-engines"  # noqa: S108  # inside Triton's container, where it is the only writer

_HEADER = "# Rendered by `clicv2-train export` from the manifest; edits are lost at the next export.\n"

_GPU = """\
platform: "onnxruntime_onnx"
{tensors}
# Two, so that one copies while the other computes.
instance_group [ { kind: KIND_GPU count: 2 } ]
# No delay: a lone request would pay it too. Workers bring batches; this joins those of several workers.
dynamic_batching {
  max_queue_delay_microseconds: 0
  default_queue_policy { max_queue_size: {max_queue_size} }
}
optimization {
  execution_accelerators {
    gpu_execution_accelerator [
      {
        name: "tensorrt"
        # Not FP16, in which what a transform coder would spend is not a number: products of coefficients overflow.
        parameters { key: "precision_mode" value: "FP32" }
        parameters { key: "trt_engine_cache_enable" value: "1" }
        parameters { key: "trt_engine_cache_path" value: "{engine_cache}" }
      }
    ]
  }
}
# TensorRT builds an engine when it meets a batch size outside those it has seen: both ends, before it is ready.
{warm_ups}
"""

_CPU = """\
backend: "python"
{tensors}
# One process; it answers as many requests at once as it may use cores (model.py), whatever the machine.
instance_group [ { kind: KIND_CPU count: 1 } ]
"""


def configs(manifest: Manifest) -> Mapping[str, str]:
    """Config texts by their path below model_repository/NAME."""
    return {GPU_CONFIG: gpu_config(manifest), CPU_CONFIG: cpu_config(manifest)}


def gpu_config(manifest: Manifest) -> str:
    """ONNX Runtime with TensorRT, on a GPU."""
    warm_ups = "\n".join(_warm_up(manifest, batch) for batch in (1, MAX_BATCH_SIZE))
    return _fill(
        _GPU,
        tensors=_tensors(manifest),
        max_queue_size=str(MAX_QUEUE_SIZE),
        engine_cache=ENGINE_CACHE,
        warm_ups=warm_ups,
    )


def cpu_config(manifest: Manifest) -> str:
    """The python backend over the same model file, on the cores that there are."""
    return _fill(_CPU, tensors=_tensors(manifest))


def image_dims(manifest: Manifest) -> tuple[int, ...]:
    """Of one picture, as Triton counts them: without the batch."""
    return manifest.preprocess.height, manifest.preprocess.width, 3


def output_dims(manifest: Manifest) -> Mapping[str, tuple[int, ...]]:
    """Of one picture's outputs, as Triton counts them: without the batch; a lone number is of the shape [1]."""
    return {
        contract.SCORE: (1,),
        contract.ENTROPY: (1,),
        contract.HEATMAP: manifest.grid,
        contract.EMBEDDING: (manifest.embedding_size,),
    }


def _tensors(manifest: Manifest) -> str:
    outputs = ",\n".join(_output(name, dims) for name, dims in output_dims(manifest).items())
    return f"""\
max_batch_size: {MAX_BATCH_SIZE}
input [
  {{ name: "{contract.INPUT}" data_type: TYPE_UINT8 dims: {_list(image_dims(manifest))} }}
]
output [
{outputs}
]
# Who prepares pictures otherwise must not use this model.
parameters {{ key: "{contract.FINGERPRINT_KEY}" value: {{ string_value: "{manifest.fingerprint}" }} }}
version_policy {{ latest {{ num_versions: 1 }} }}"""


def _output(name: str, dims: tuple[int, ...]) -> str:
    # The graph gives [B]; Triton wants a dimension beside the batch's, and calls it [B, 1].
    reshape = " reshape: { shape: [ ] }" if dims == (1,) else ""
    return f'  {{ name: "{name}" data_type: TYPE_FP32 dims: {_list(dims)}{reshape} }}'


def _warm_up(manifest: Manifest, batch: int) -> str:
    return f"""\
model_warmup [
  {{
    name: "{batch}"
    batch_size: {batch}
    inputs {{
      key: "{contract.INPUT}"
      value: {{ data_type: TYPE_UINT8 dims: {_list(image_dims(manifest))} random_data: true }}
    }}
  }}
]"""


def _list(dims: tuple[int, ...]) -> str:
    return f"[ {', '.join(map(str, dims))} ]"


def _fill(template: str, **values: str) -> str:
    """Not str.format: protobuf text is full of braces."""
    for name, value in values.items():
        template = template.replace(f"{{{name}}}", value)
    return _HEADER + template
