"""What is computed of pictures is the transforms' own, and computed once."""

import pytest
import torch

from training.models import computed
from training.models.computed import Computed
from training.transforms.code_length import code_lengths
from training.transforms.coding_rate import coding_rates


def test_each_is_what_the_transforms_say_and_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    calls: list[str] = []

    def counted(*arguments: object) -> torch.Tensor:
        calls.append("code_lengths")
        return code_lengths(*arguments)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(computed, "code_lengths", counted)
    found = Computed(images)
    assert not calls
    lengths = code_lengths(images, 16)
    assert torch.equal(found.coding_rates, coding_rates(lengths, (2, 3)))
    assert torch.equal(found.code_lengths, lengths)
    assert found.coding_rates is found.coding_rates
    assert calls == ["code_lengths"]
