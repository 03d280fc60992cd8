"""Randomness that does not depend on how many processes share a batch."""

import pytest
import torch

from training.draw import Draw


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_the_shares_of_all_processes_are_what_one_process_draws(ranks: int) -> None:
    alone, shares = Draw(7), [Draw(7, rank, ranks) for rank in range(ranks)]
    assert torch.equal(torch.cat([s.uniform(4, 2, 3) for s in shares]), alone.uniform(4 * ranks, 2, 3))
    assert {s.shared() for s in shares} == {alone.shared()}
    assert torch.equal(torch.cat([s.integers(9, 5) for s in shares]), alone.integers(9, 5 * ranks))


def test_numbers_lie_in_their_range_and_follow_the_seed() -> None:
    drawn = Draw(0).uniform(2000)
    assert 0.0 <= drawn.min() < 0.01 < 0.99 < drawn.max() < 1.0
    assert set(Draw(0).integers(3, 200).tolist()) == {0, 1, 2}
    assert torch.equal(drawn, Draw(0).uniform(2000))
    assert not torch.equal(drawn, Draw(1).uniform(2000))
