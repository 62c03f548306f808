"""Random batches of log-probabilities, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from paperworks.language.objectives import Objective, ResponseLogps


@pytest.fixture
def random_batch() -> Callable[..., Any]:
    """`random_batch(objective, items=8, seed=0)` is what its `loss` takes; no reference unless it needs one."""

    def build(objective: Objective, items: int = 8, seed: int = 0) -> Any:
        generator = torch.Generator().manual_seed(seed)

        def uniform(count: int = items) -> torch.Tensor:
            return torch.rand(count, generator=generator, dtype=torch.float64)

        def response(count: int) -> ResponseLogps:
            tokens = torch.randint(1, 40, (count,), generator=generator).double()
            reference = -3 * uniform(count) * tokens if objective.needs_reference else None
            return ResponseLogps((-3 * uniform(count) * tokens).requires_grad_(), tokens, reference)

        n_base = getattr(objective, "n_base", 1)
        scores = {role: response(items * (n_base if role == "base" else 1)) for role in objective.roles}
        desirable = (torch.arange(items) % 3 > 0).double()
        return objective.batch(scores, weight=0.5 + uniform(), desirable=desirable, kl=10 * uniform().mean())

    return build
