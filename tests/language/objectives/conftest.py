"""Random batches of log-probabilities, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from paperworks.language.objectives import Objective, ResponseLogps
from paperworks.language.objectives.objective import ByToken, StepInputs


@pytest.fixture
def random_batch() -> Callable[..., Any]:
    """`random_batch(objective, items=8, seed=0)` is what its `loss` takes; only what the objective asks for is in it."""

    def build(objective: Objective, items: int = 8, seed: int = 0) -> Any:
        generator = torch.Generator().manual_seed(seed)

        def uniform(count: int = items) -> torch.Tensor:
            return torch.rand(count, generator=generator, dtype=torch.float64)

        def response(role: str, each: int) -> ResponseLogps:
            count = items * each
            lengths = torch.randint(1, 40, (count,), generator=generator)
            of_token, total = torch.arange(count).repeat_interleave(lengths), int(lengths.sum())
            compares = role in objective.reference_roles
            by_token = ByToken(
                (-3 * uniform(count)[of_token] * uniform(total)).requires_grad_(),
                -3 * uniform(count)[of_token] * uniform(total) if compares else None,
                of_token,
                count,
            )
            return ResponseLogps(
                by_token.summed(by_token.policy) if objective.needs_tokens else _leaf(by_token, by_token.policy),
                lengths.double(),
                by_token.summed(by_token.reference) if by_token.reference is not None else None,
                by_token if objective.needs_tokens else None,
                (uniform(count) * lengths).requires_grad_() if role in objective.kl_roles else None,
                row=torch.arange(items).repeat_interleave(each),
            )

        several = {"base": getattr(objective, "n_base", 1), "online": 3} | (
            {"response": 4} if grouped(objective) else {}
        )
        scores = {role: response(role, several.get(role, 1)) for role in objective.roles}
        numbers = {
            "desirable": (torch.arange(items) % 3 > 0).double(),
            "reward": uniform(),
            "advantage": uniform() - 0.3,
            "margin": torch.where(torch.arange(items) % 2 == 0, uniform(), torch.nan),
        }
        numbers["explored"] = (torch.arange(items) % 2).double()
        numbers["probability"] = torch.where(torch.arange(items) % 4 == 0, torch.nan, uniform())
        numbers |= {"chosen_reward": uniform(), "rejected_reward": uniform()}
        asked = {name: numbers[name] for name in objective.numbers}
        of_responses = {name: {"response": uniform(4 * items)} for name in objective.response_numbers}
        kl = 10 * uniform().mean()
        return objective.batch(scores, StepInputs(0.5 + uniform(), asked, step_kl=kl, response_numbers=of_responses))

    return build


def grouped(objective: Objective) -> bool:
    """Whether a row of the objective holds several responses in one role, with numbers of their own."""
    return bool(objective.response_numbers)


def _leaf(by_token: ByToken, values: torch.Tensor) -> torch.Tensor:
    return by_token.summed(values.detach()).requires_grad_()
