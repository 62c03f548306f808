"""The example of a user's own objective: short, found by its name, trained like the others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from paperworks.language.data import Dataset
from paperworks.language.objectives import DPO, Registry, ResponseLogps
from paperworks.language.objectives.objective import StepInputs
from paperworks.language.policy import Policy
from paperworks.language.training import TrainOptions, train

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "my_objective.py"
GUIDE = ROOT / "docs" / "your-own-objective.md"


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    registry.load_file(EXAMPLE)
    return registry


def test_it_is_short_and_the_guide_shows_it_whole() -> None:
    text = EXAMPLE.read_text()
    assert len(text.splitlines()) <= 25
    assert f"```python\n{text}```" in GUIDE.read_text()


def test_without_its_gamma_it_is_dpo(registry: Registry) -> None:
    draw = torch.Generator().manual_seed(0)
    chosen, rejected = (
        ResponseLogps(
            -10 * torch.rand(50, generator=draw), torch.full((50,), 7.0), -10 * torch.rand(50, generator=draw)
        )
        for _ in range(2)
    )
    own, dpo = registry.make("focal-dpo", {"gamma": 0, "beta": 0.3}), DPO(beta=0.3)
    pair = dpo.batch({"chosen": chosen, "rejected": rejected}, StepInputs(torch.ones(50)))
    assert torch.equal(own.loss(pair), dpo.loss(pair))
    focused = registry.make("focal-dpo", {"gamma": 2, "beta": 0.3})
    assert torch.allclose(focused.loss(pair), dpo.loss(pair) * torch.sigmoid(-dpo.margin(pair)) ** 2)


def test_it_trains(registry: Registry, small_policy: Policy, pairs: Dataset) -> None:
    objective = registry.make("focal-dpo", {"gamma": "1.5"})
    options = TrainOptions(steps=4, batch_size=8, learning_rate=1e-2)
    result = train(small_policy, objective, pairs, options)
    assert result.steps == 4
    assert result.final["margin"] > result.first["margin"]
