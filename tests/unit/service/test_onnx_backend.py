import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_model

from clicv2 import contract
from clicv2.errors import ContractError
from service.backend.onnx import OnnxBackend
from service.backend.protocol import BackendDown, BackendError

pytestmark = pytest.mark.anyio


async def test_alone_and_together(repository: Path) -> None:
    """One after the other, side by side, and batches of every size agree."""
    backend = OnnxBackend(contract.open_version(repository / "clicv2"), threads=2)
    images = np.random.default_rng(0).integers(0, 256, (8, tiny_model.SIDE, tiny_model.SIDE, 3), dtype=np.uint8)
    alone = [await backend.infer(image[None]) for image in images]
    side_by_side = await asyncio.gather(*(backend.infer(image[None]) for image in images))
    for size in range(1, 9):
        batch = await backend.infer(images[:size])
        batch.check_shapes(size, backend.manifest)
        for index in range(size):
            for one in (alone[index], side_by_side[index]):
                assert batch.at(index).score == pytest.approx(one.at(0).score, abs=1e-4)
                np.testing.assert_allclose(batch.at(index).heatmap, one.at(0).heatmap, atol=1e-4)
    await backend.close()


async def test_a_call_that_fails(repository: Path) -> None:
    backend = OnnxBackend(contract.open_version(repository / "clicv2"), threads=1)
    with pytest.raises(BackendError, match="ONNX Runtime"):
        await backend.infer(np.zeros((1, 7, 7, 3), np.uint8))
    await backend.close()
    with pytest.raises(BackendDown):
        await backend.infer(np.zeros((1, tiny_model.SIDE, tiny_model.SIDE, 3), np.uint8))


async def test_a_model_made_for_other_preprocessing(tmp_path: Path) -> None:
    tiny_model.write(tmp_path, fingerprint="0123456789abcdef")
    with pytest.raises(ContractError, match="0123456789abcdef"):
        OnnxBackend(contract.open_version(tmp_path / "clicv2"), threads=1)


async def test_a_file_that_is_no_model(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(ContractError, match="cannot be loaded"):
        OnnxBackend(replace(contract.open_version(repository / "clicv2"), folder=tmp_path), threads=1)
