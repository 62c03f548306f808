"""Checkpoints: all of the training state comes back, or an error says which folder is damaged; nothing is unpickled."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from paperworks.core import checkpoints
from paperworks.core.errors import RunError


class Net(nn.Module):
    """Two layers, the first frozen, dropout between."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.frozen, self.dropout, self.head = nn.Linear(3, width), nn.Dropout(0.5), nn.Linear(width, 1)
        self.frozen.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.dropout(self.frozen(x)))


def fresh(seed: int = 0, fused: bool = False, width: int = 4) -> tuple[Net, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    net = Net(width)
    return net, torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=0.1, fused=fused)


def step(net: Net, optimiser: torch.optim.Optimizer) -> None:
    net(torch.ones(2, 3)).square().sum().backward()
    optimiser.step()
    optimiser.zero_grad()


def global_draws() -> tuple[float, float, float]:
    return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002 - the global one that libraries use


@pytest.mark.parametrize("fused", [False, True])
def test_training_goes_on_bit_for_bit(fused: bool, tmp_path: Path) -> None:
    net, optimiser = fresh(fused=fused)
    step(net, optimiser)
    checkpoints.save_checkpoint(tmp_path, net, optimiser, {"step": 1})
    step(net, optimiser)
    draws = global_draws()
    again, other = fresh(fused=fused)
    assert checkpoints.load_checkpoint(tmp_path, again, other) == {"step": 1}
    step(again, other)
    assert global_draws() == draws
    for name, value in net.named_parameters():
        assert torch.equal(value, dict(again.named_parameters())[name]), name


def test_only_what_trains_is_written(tmp_path: Path) -> None:
    net, optimiser = fresh()
    folder = checkpoints.save_checkpoint(tmp_path, net, optimiser, {"step": 3})
    assert set(checkpoints.trainable(net)) == {"head.weight", "head.bias"}
    assert folder.name == "step-00000003"
    assert {path.suffix for path in folder.iterdir()} == {".safetensors", ".json"}


def test_the_newest_is_taken_and_older_ones_go(tmp_path: Path) -> None:
    net, optimiser = fresh()
    for number in (9, 10, 100_000_000):
        checkpoints.save_checkpoint(tmp_path, net, optimiser, {"step": number}, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000010", "step-100000000"]
    assert checkpoints.load_checkpoint(tmp_path, net, optimiser) == {"step": 100_000_000}


def test_without_a_checkpoint_there_is_no_state(tmp_path: Path) -> None:
    assert checkpoints.load_checkpoint(tmp_path / "nowhere", *fresh()) is None
    (tmp_path / ".step-00000001.half.tmp").mkdir()
    (tmp_path / "best").mkdir()
    assert checkpoints.load_checkpoint(tmp_path, *fresh()) is None


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, emptied, Path.unlink])
@pytest.mark.parametrize("name", ["weights.safetensors", "optimiser.safetensors", "random.safetensors", "state.json"])
def test_damage_is_named(name: str, damage: Any, tmp_path: Path) -> None:
    net, optimiser = fresh()
    step(net, optimiser)
    folder = checkpoints.save_checkpoint(tmp_path, net, optimiser, {"step": 1})
    damage(folder / name)
    with pytest.raises(RunError, match="step-00000001") as caught:
        checkpoints.load_checkpoint(tmp_path, net, optimiser)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    checkpoints.save_checkpoint(tmp_path, *fresh(width=5), {"step": 1})
    net, optimiser = fresh()
    before = {name: value.clone() for name, value in checkpoints.trainable(net).items()}
    with pytest.raises(RunError, match="other weights than this model trains"):
        checkpoints.load_checkpoint(tmp_path, net, optimiser)
    assert all(torch.equal(value, before[name]) for name, value in checkpoints.trainable(net).items())


def test_the_best_weights_come_back(tmp_path: Path) -> None:
    net, optimiser = fresh()
    checkpoints.save_weights(tmp_path / "best", net)
    before = {name: value.clone() for name, value in checkpoints.trainable(net).items()}
    step(net, optimiser)
    checkpoints.load_weights(tmp_path / "best", net)
    assert all(torch.equal(value, before[name]) for name, value in checkpoints.trainable(net).items())


@pytest.mark.parametrize("damage", [cut, Path.unlink])
def test_damaged_best_weights_are_named(damage: Any, tmp_path: Path) -> None:
    net, _ = fresh()
    checkpoints.save_weights(tmp_path / "best", net)
    damage(tmp_path / "best" / "weights.safetensors")
    with pytest.raises(RunError, match=r"best.*damaged"):
        checkpoints.load_weights(tmp_path / "best", net)


def test_numbers_that_json_lacks_are_kept_as_nothing(tmp_path: Path) -> None:
    net, optimiser = fresh()
    folder = checkpoints.save_checkpoint(tmp_path, net, optimiser, {"step": 1, "best_loss": float("inf")})
    assert json.loads((folder / "state.json").read_text()) == {"step": 1, "best_loss": None}
