"""The key encoder, its queue, and that a step leaves the gradients where they belong."""

import dataclasses
import itertools
import json
import os
import subprocess
import sys
from collections import deque
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from training.checkpoint import Checkpoint
from training.curves import METRICS
from training.methods.momentum import MomentumContrast, MomentumSettings, Queue, follow, frozen_copy
from training.models.encoder import Encoder
from training.pretrain import pretrain
from training.recipe import Recipe

SMALL = MomentumSettings(view_size=32, queue=8, momentum=0.9, hidden=16, dim=4)


def contrast(settings: MomentumSettings = SMALL) -> MomentumContrast:
    torch.manual_seed(0)
    return MomentumContrast(Encoder(dim=16, depth=1, heads=1, stem=(4, 4, 8)), settings)


@pytest.mark.parametrize(("size", "batch"), list(itertools.product((1, 4, 6, 7), (1, 3, 4, 10))))
def test_the_queue_is_a_deque(size: int, batch: int) -> None:
    torch.manual_seed(size)
    queue = Queue(size, 3)
    expected = deque(queue.keys.clone(), maxlen=size)
    for _ in range(7):
        keys = torch.randn(batch, 3)
        queue.add(keys)
        expected.extend(keys)
        oldest = int(queue.oldest)
        in_order = torch.cat([queue.keys[oldest:], queue.keys[:oldest]])
        assert torch.equal(in_order, torch.stack(list(expected)))


def test_the_queue_starts_with_random_directions() -> None:
    queue = Queue(200, 16)
    assert torch.allclose(queue.keys.norm(dim=1), torch.ones(200))
    assert queue.keys.mean(dim=0).norm() < 0.2


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.999])
def test_the_follower_moves_by_the_formula(momentum: float) -> None:
    leader, follower = nn.Linear(3, 2), nn.Linear(3, 2)
    pairs = zip(follower.parameters(), leader.parameters(), strict=True)
    expected = [momentum * k.detach() + (1 - momentum) * q.detach() for k, q in pairs]
    follow(follower, leader, momentum)
    for weight, value in zip(follower.parameters(), expected, strict=True):
        assert torch.allclose(weight, value, atol=1e-6)


def test_a_frozen_copy_shares_nothing_and_learns_nothing() -> None:
    module = nn.Linear(3, 2)
    copy = frozen_copy(module)
    assert not any(p.requires_grad for p in copy.parameters())
    assert all(p.requires_grad for p in module.parameters())
    with torch.no_grad():
        module.weight += 1
    assert not torch.equal(copy.weight, module.weight)


def test_the_key_encoder_gets_no_gradient_but_follows() -> None:
    moco = contrast()
    before = {name: weight.clone() for name, weight in moco.state_dict().items()}
    with torch.no_grad():
        for weight in (*moco.encoder.parameters(), *moco.projection.parameters()):
            weight += 0.1
    found = moco.contrast(moco.encoder(torch.rand(2, 3, 32, 32)), torch.rand(2, 3, 32, 32))
    found.loss.backward()
    touched = {name.split(".")[0] for name, p in moco.named_parameters() if p.grad is not None}
    assert touched == {"encoder", "projection"}
    for name, weight in moco.named_parameters():
        if name.startswith("key_"):
            assert torch.allclose(weight, before[name] + 0.01, atol=1e-6), name


def test_a_query_meets_the_keys_of_earlier_batches_alone() -> None:
    """The third batch's negatives are the keys of the first two, and its own keys are queued after it."""
    moco = contrast(dataclasses.replace(SMALL, momentum=0.0, queue=4, temperature=1.0))
    batches = [torch.rand(2, 3, 32, 32) for _ in range(3)]
    with torch.no_grad():
        keys = [
            nn.functional.normalize(moco.projection(moco.encoder(batch).last.mean(dim=1)), dim=1) for batch in batches
        ]
        for batch in batches[:2]:
            moco.contrast(moco.encoder(batch), batch)
        assert torch.allclose(moco.queue.keys, torch.cat(keys[:2]), atol=1e-6)
        found = moco.contrast(moco.encoder(batches[2]), batches[2])
    similarity = keys[2] @ torch.cat(keys[:2]).T
    expected = (1 + (similarity - 1).exp().sum(dim=1)).log().mean()
    assert found.loss.item() == pytest.approx(expected.item(), abs=1e-5)
    assert torch.allclose(moco.queue.keys, torch.cat([keys[2], keys[1]]), atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"view_size": 100}, "multiple of the patch"),
        ({"momentum": 1.0}, "never move"),
        ({"queue": 0}, "above 0"),
        ({"temperature": 0.0}, "above 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, float], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        dataclasses.replace(SMALL, **settings)


@pytest.mark.parametrize("method", ["clic", "mocov2"])
def test_two_processes_take_the_steps_of_one(recipe: Recipe, tmp_path: Path, method: str) -> None:
    """Losses, weights and the queue, which holds the keys of both; its length is no multiple of the batch."""
    recipe = recipe.model_copy(update={"method": method})
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    launch = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "training.cli", "pretrain"]
    command = [sys.executable, "-m", *launch, str(file), "--out", str(tmp_path / "two")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    pretrain(recipe, tmp_path / "one")
    one, two = (
        [json.loads(line) for line in (tmp_path / name / METRICS).read_text().splitlines()] for name in ("one", "two")
    )
    assert len(one) == len(two) == 9
    for alone, together in zip(one, two, strict=True):
        for measure in set(alone) - {"step_s", "wait_s"}:
            assert together[measure] == pytest.approx(alone[measure], rel=1e-3, abs=1e-5), (alone["step"], measure)
    weights = Checkpoint.load(tmp_path / "two").weights
    for name, weight in Checkpoint.load(tmp_path / "one").weights.items():
        assert torch.allclose(weight, weights[name], atol=5e-4), name
