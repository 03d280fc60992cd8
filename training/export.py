"""Checkpoint + readout -> one version of a model repository: model.onnx, its manifest, and what Triton needs.

The exported graph is compared with torch on real and random images before anything is published;
a version is written beside and renamed, so that a server never sees half of one.
"""

import hashlib
import json
import logging
import random
import shutil
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor

from clicv2 import contract, triton
from clicv2.contract import Figure, Manifest
from clicv2.errors import ContractError
from clicv2.imaging import Pixels
from clicv2.spec import PreprocessSpec
from training import fit
from training.checkpoint import Checkpoint
from training.data.images import ImageDataset, find_images
from training.data.ratings import Floats
from training.evaluate import evaluate
from training.models.readout import ComplexityModel
from training.recipe import Recipe
from training.scorers import TorchScorer, score_all

OPSET = 20
# Largest absolute difference between torch and ONNX Runtime, on every output.
PARITY = 1e-4
# Percentiles 0, 1, ... 100 of the reference set's scores.
REFERENCE_POINTS = 101
TIMED_RUNS = 30
# Ends the name of a weight that the exporter turned round, as ONNX wants it.
TURNED = ".T"
# What the manifest repeats of the readout's report; "label_free": no rating has touched the weights before it.
FIT_FACTS = ("kind", "layers", "label_free", "finetuned", "ratings", "ratings_sha256", "ratings_images")
# Real images in the comparison of torch and ONNX Runtime.
PARITY_IMAGES = 8
# Runs model.onnx in Triton's python backend; copied beside each version.
TRITON_MODEL = Path(__file__).parent / "templates/triton_model.py"


def export_run(
    run: Path, target: Path, reference: Sequence[Path], images: Sequence[Path], table: Path, reference_count: int
) -> Manifest:
    """Export a run that was pretrained and fitted.

    Args:
        target: model_repository/NAME/VERSION, not there yet.
        reference: images of which `reference_count`, drawn at random, give the percentiles.
        images, table: ratings for the label-free figures; those of the score come from the fit's cross-validation.

    Raises FileExistsError: a version that was published is never changed; export the next one.
    Raises ValueError when it does not fit to the model's other versions.
    """
    if target.exists():  # said before the minutes that scoring takes
        raise FileExistsError(f"{target} is published already: export the next version")
    checkpoint = Checkpoint.load(run)
    method = checkpoint.method()
    check_kinship(target, checkpoint.recipe.input_spec, method.encoder.dim)
    model = ComplexityModel(method.encoder, method.label_free, *fit.load_readout(run / fit.FILE)).eval()
    report = json.loads((run / fit.REPORT).read_text())
    found = find_images(reference)
    chosen = random.Random(0).sample(found, min(reference_count, len(found)))
    dataset = ImageDataset(chosen, checkpoint.recipe.input_spec)
    scores = score_all(TorchScorer(run), dataset).score
    if scores is None:
        raise ValueError(f"{run} has no readout: run clicv2-train fit first")
    label_free = evaluate(run, images, table).outputs["entropy"].mean
    return publish(
        model,
        checkpoint.recipe,
        target,
        pixels=np.stack([dataset[i].numpy() for i in range(min(PARITY_IMAGES, len(dataset)))]),
        reference=scores,
        figures={
            **{f"score_{measure}_cross_validated": Figure(**f) for measure, f in report["cross_validated"].items()},
            **{f"entropy_{measure}": f for measure, f in label_free.items()},
        },
        data={
            "pretraining": [p.name for p in checkpoint.recipe.images],
            "steps": checkpoint.step,
            **{name: report[name] for name in FIT_FACTS},
            "reference": [p.name for p in reference],
            "reference_images": len(chosen),
        },
    )


def export_onnx(model: ComplexityModel, spec: PreprocessSpec, path: Path) -> None:
    """Write the model as ONNX with a free batch size and the preprocessing's fingerprint in its metadata."""
    model.eval()
    example = torch.zeros(2, spec.height, spec.width, 3, dtype=torch.uint8)
    # The exporter complains about its own internals and about torchvision, which is not used.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        program = torch.onnx.export(
            model,
            (example,),
            input_names=[contract.INPUT],
            output_names=list(contract.OUTPUTS),
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:  # only the legacy exporter returns nothing
        raise RuntimeError("torch.onnx.export returned no program")
    proto = program.model_proto
    _name_turned_weights(proto.graph, model)
    onnx.helper.set_model_props(proto, {contract.FINGERPRINT_KEY: spec.fingerprint()})
    onnx.checker.check_model(proto)
    onnx.save(proto, path)


def _name_turned_weights(graph: onnx.GraphProto, model: ComplexityModel) -> None:
    """Give the matrices for which the exporter made up names their own, so that they can be found again."""
    names = {
        (weight.T.shape, weight.T.contiguous().numpy().tobytes()): name + TURNED
        for name, weight in model.state_dict().items()
        if weight.ndim == 2
    }
    named = {each.name for each in graph.initializer}
    renamed = {}
    for each in graph.initializer:
        name = names.get((tuple(each.dims), each.raw_data))
        if name is not None and name.removesuffix(TURNED) not in named:
            renamed[each.name] = each.name = name
    for node in graph.node:
        for number, name in enumerate(node.input):
            node.input[number] = renamed.get(name, name)


def check_parity(model: ComplexityModel, path: Path, pixels: Pixels) -> float:
    """Compare torch and ONNX Runtime at several batch sizes on uint8 images [N, H, W, 3].

    Returns the largest absolute difference over all outputs. Raises ValueError above `PARITY`.
    """
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    worst = 0.0
    for size in (1, 3, len(pixels)):
        batch = np.ascontiguousarray(pixels[:size])
        with torch.inference_mode():
            expected: tuple[Tensor, ...] = model(torch.from_numpy(batch))
        found = session.run(list(contract.OUTPUTS), {contract.INPUT: batch})
        for name, e, f in zip(contract.OUTPUTS, expected, found, strict=True):
            difference = float(np.abs(e.numpy() - f).max())
            if not difference <= PARITY:  # also when it is NaN
                raise ValueError(f"{name} differs by {difference} between torch and ONNX at batch size {size}")
            worst = max(worst, difference)
    return worst


def seconds_per_image(path: Path, spec: PreprocessSpec) -> float:
    """Median time of one image on one thread, without decoding."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    pixels = np.random.default_rng(0).integers(0, 256, (1, spec.height, spec.width, 3), dtype=np.uint8)
    times = []
    for _ in range(TIMED_RUNS):
        start = time.perf_counter()
        session.run(None, {contract.INPUT: pixels})
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def check_kinship(target: Path, spec: PreprocessSpec, embedding_size: int) -> None:
    """Raises ValueError unless the model's other versions take and give the same tensors.

    Whoever serves swaps versions under load: pictures that are prepared for one must do for the next, and
    Triton has one config for all of them.
    """
    for path in sorted(target.parent.glob(f"[1-9]*/{contract.MANIFEST_FILE}")):
        try:
            other = Manifest.load(path)
        except ContractError as error:
            raise ValueError(f"{error}; export under another name, or remove that version") from error
        if (other.fingerprint, other.embedding_size) != (spec.fingerprint(), embedding_size):
            raise ValueError(
                f"{path.parent} has the preprocessing {other.fingerprint} and embeddings of {other.embedding_size}, "
                f"this one {spec.fingerprint()} and {embedding_size}: another model, to be exported under another name"
            )


def publish(
    model: ComplexityModel,
    recipe: Recipe,
    target: Path,
    *,
    pixels: Pixels,
    reference: Floats,
    figures: Mapping[str, Figure],
    data: Mapping[str, object],
) -> Manifest:
    """Write model and manifest, checked, as one version that appears all at once.

    Args:
        target: model_repository/NAME/VERSION.
        pixels: uint8 [N, H, W, 3], real images for the parity check.
        reference: scores of the reference set, for percentiles.
        figures, data: what the manifest states.

    Raises OSError when the version is there already, ValueError when it does not fit to the others.
    """
    spec = recipe.input_spec
    check_kinship(target, spec, model.encoder.dim)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".export-", dir=target.parent))
    try:
        file = partial / contract.MODEL_FILE
        export_onnx(model, spec, file)
        noise = np.random.default_rng(0).integers(0, 256, (1, *pixels.shape[1:]), dtype=np.uint8)
        difference = check_parity(model, file, np.concatenate([noise, pixels]))
        manifest = Manifest(
            name=target.parent.name,
            version=int(target.name),
            method=recipe.method,
            recipe=recipe.model_dump(mode="json"),
            data=data,
            preprocess=spec,
            fingerprint=spec.fingerprint(),
            grid=(spec.height // 16, spec.width // 16),
            embedding_size=model.encoder.dim,
            calibration={
                "kind": "logistic",
                "slope": model.calibration.slope,
                "intercept": model.calibration.intercept,
            },
            reference=tuple(np.quantile(reference, np.linspace(0, 1, REFERENCE_POINTS)).round(6).tolist()),
            figures=figures,
            measured={
                "parameters": sum(p.numel() for p in model.parameters()),
                "bytes": file.stat().st_size,
                "parity_with_torch": difference,
                "seconds_per_image_one_core": round(seconds_per_image(file, spec), 5),
            },
            sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        )
        manifest.save(partial / contract.MANIFEST_FILE)
        shutil.copyfile(TRITON_MODEL, partial / triton.PYTHON_MODEL)
        _write_configs(manifest, target.parent)
        partial.chmod(0o755)  # mkdtemp's 0700 would lock other users' servers out
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return manifest


def _write_configs(manifest: Manifest, model: Path) -> None:
    """Each whole or not at all: a server may be reading."""
    for name, text in triton.configs(manifest).items():
        path = model / name
        path.parent.mkdir(exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
