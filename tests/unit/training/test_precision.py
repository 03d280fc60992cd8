"""bf16 where the device computes in it, float32 where it would only emulate."""

from pathlib import Path

import pytest
import torch

from training.precision import computes_bf16, mixed_precision
from training.pretrain import pretrain
from training.recipe import Recipe

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"architecture": "x86_64", "avx2": True, "avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"architecture": "x86_64", "avx2": True, "avx512_bf16": True}, True),
        ({"architecture": "x86_64", "amx_bf16": True}, True),
        ({"architecture": "aarch64", "neon": True, "bf16": True}, True),
        ({"architecture": "aarch64", "neon": True, "sve_max_length": 16}, False),
    ],
)
def test_a_cpu_uses_bf16_if_it_has_instructions_for_it(
    capabilities: dict[str, object], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert computes_bf16(CPU) is expected
    matrix = torch.ones(2, 2)
    for wished in (True, False):
        with mixed_precision(CPU, bf16=wished):
            found = (matrix @ matrix).dtype
        assert found is (torch.bfloat16 if wished and expected else torch.float32)


def test_this_machine_is_asked_and_no_other_kind_of_device() -> None:
    assert computes_bf16(CPU) in {True, False}
    assert not computes_bf16(torch.device("meta"))


@pytest.mark.parametrize(("wished", "computed", "said"), [(True, False, 1), (True, True, 0), (False, False, 0)])
def test_a_pretraining_says_when_it_does_without(
    wished: bool,
    computed: bool,
    said: int,
    recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": computed})
    optim = recipe.optim.model_copy(update={"bf16": wished, "epochs": 1})
    pretrain(recipe.model_copy(update={"optim": optim}), tmp_path)
    assert " ".join(capsys.readouterr().err.split()).count("float32 instead") == said
