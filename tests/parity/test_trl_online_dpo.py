"""The losses of online pairs as TRL 1.16's online DPO computes them: its own training step, on given log-probabilities."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from paperworks.language.objectives.objective import PairLogps, ResponseLogps
from paperworks.language.objectives.soft_preferences import DNO, OnlineDPO, OnlineIPO

online_dpo = pytest.importorskip("trl.experimental.online_dpo")

PROMPTS, LENGTH, BETA = 4, 6, 0.3


def trl_step(loss_type: str, policy: Tensor, reference: Tensor, mask: Tensor, rewards: Tensor) -> Tensor:
    """The loss that TRL's trainer hands to its backward pass, for two answers a prompt: first ones, then second ones."""
    found: list[Tensor] = []
    model = SimpleNamespace(train=lambda: None)
    # a class of its own, because beta is a property of the trainer that reads its training state
    trainer: Any = object.__new__(type("Stub", (online_dpo.OnlineDPOTrainer,), {"beta": BETA}))
    ids = torch.zeros(2 * PROMPTS, LENGTH, dtype=torch.long)
    trainer._generate = lambda model, prompts, images: (ids, ids, ids, mask, None)
    trainer._forward = lambda which, *rest: policy if which is model else reference
    trainer._calculate_rewards_from_functions = lambda **arguments: rewards
    trainer.ref_model, trainer.eos_token_ids, trainer.reward_funcs = object(), [0], [object()]
    trainer.processing_class = SimpleNamespace(batch_decode=lambda ids, **options: [""] * len(ids))
    trainer.stats, trainer.state = defaultdict(list), SimpleNamespace(global_step=0)
    trainer.accelerator = SimpleNamespace(gather_for_metrics=lambda value: value, backward=found.append)
    trainer.args = SimpleNamespace(
        loss_type=loss_type,
        use_vllm=False,
        missing_eos_penalty=None,
        torch_empty_cache_steps=None,
        optim="adamw_torch",
        n_gpu=1,
        gradient_accumulation_steps=1,
    )
    trainer.training_step(model, {"prompt": ["question"] * PROMPTS})
    return found[0]


@pytest.mark.parametrize(
    ("loss_type", "objective"),
    [
        ("sigmoid", OnlineDPO(beta=BETA)),
        ("sigmoid", DNO(eta=BETA, target="hard")),
        ("ipo", OnlineIPO(tau=BETA, scale="square")),  # sums over tokens, other than TRL's offline ipo
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_loss_and_gradient(loss_type: str, objective: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    policy, reference = -3 * torch.rand(2, 2 * PROMPTS, LENGTH, generator=generator, dtype=torch.float64)
    policy.requires_grad_(True)
    mask = (torch.arange(LENGTH) < torch.randint(1, LENGTH + 1, (2 * PROMPTS, 1), generator=generator)).long()
    rewards = torch.rand(2 * PROMPTS, generator=generator)
    theirs = trl_step(loss_type, policy, reference, mask, rewards)

    prompts = torch.arange(PROMPTS)
    first_wins = rewards[:PROMPTS] >= rewards[PROMPTS:]
    chosen, rejected = (torch.where(wins, prompts, prompts + PROMPTS) for wins in (first_wins, ~first_wins))

    def scores(rows: Tensor) -> ResponseLogps:
        tokens = mask[rows].to(policy.dtype)
        return ResponseLogps((policy[rows] * tokens).sum(1), tokens.sum(1), (reference[rows] * tokens).sum(1))

    batch = PairLogps(scores(chosen), scores(rejected), torch.ones(PROMPTS, dtype=policy.dtype))
    ours = objective.loss(batch).mean()
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)
    for_ours, for_theirs = (torch.autograd.grad(loss, policy, retain_graph=True)[0] for loss in (ours, theirs))
    assert torch.allclose(for_ours, for_theirs, rtol=1e-10, atol=1e-14)
