"""The same losses as the code released with NPO computes them: on the logits of padded batches, in torch's own functions.

Its formulas are written out here (licong-lin/negative-preference-optimization). Where it takes the divergence at all
positions, prompt and padding included, we take it at answer positions alone.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from paperworks.language.objectives.npo import NPO, NPOKL, NPORetain
from paperworks.language.objectives.objective import ResponseLogps, StepInputs
from paperworks.language.objectives.unlearning import (
    GradientAscent,
    GradientAscentForgetKL,
    GradientAscentKL,
    GradientDifference,
    UnlearningObjective,
)
from paperworks.language.objectives.unlearning_alternatives import DPOIDK, IDK, KTOIDK, DPOIDKRetain, KTOIDKRetain

ROWS, WIDTH, VOCABULARY, BETA = 4, 9, 11, 0.3
ROLES = ("forget", "alternative", "retain")


class Padded:
    """Logits of the model and of the reference at the positions that predict `labels`; -100 is prompt or padding."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        start = torch.randint(0, 4, (ROWS, 1), generator=generator)
        length = torch.randint(1, 6, (ROWS, 1), generator=generator)
        place = torch.arange(WIDTH)
        ids = torch.randint(0, VOCABULARY, (ROWS, WIDTH), generator=generator)
        self.labels = torch.where((place >= start) & (place < start + length), ids, -100)
        shape = (ROWS, WIDTH, VOCABULARY)
        self.logits = torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
        self.reference = torch.randn(shape, generator=generator, dtype=torch.float64)

    def mean_loss(self) -> Tensor:
        """What a transformers model returns as its loss."""
        return functional.cross_entropy(self.logits.flatten(0, 1), self.labels.flatten())

    def summed_loss(self, logits: Tensor) -> Tensor:
        """A negative log-likelihood an answer."""
        return functional.cross_entropy(logits.transpose(1, 2), self.labels, reduction="none").sum(dim=1)

    def divergence(self) -> Tensor:
        at = self.labels != -100
        now, before = (logits.log_softmax(-1)[at] for logits in (self.logits, self.reference))
        return functional.kl_div(now, before, reduction="batchmean", log_target=True)

    def scores(self) -> ResponseLogps:
        """The same answers as an objective is given them."""
        at = self.labels != -100
        now, before = self.logits.log_softmax(-1), self.reference.log_softmax(-1)
        label = self.labels.clamp(min=0)[..., None]
        policy, reference = (((logp.gather(2, label)[..., 0]) * at).sum(dim=1) for logp in (now, before))
        kl = ((before.exp() * (before - now)).sum(dim=-1) * at).sum(dim=1)
        return ResponseLogps(policy, at.sum(dim=1).double(), reference, vocabulary_kl=kl)


@pytest.fixture
def step() -> dict[str, Padded]:
    return {role: Padded(seed) for seed, role in enumerate(ROLES)}


def released(step: dict[str, Padded]) -> dict[str, Tensor]:
    """The released losses by name, beta = BETA, coefficients 1."""
    forget, alternative, retain = (step[role] for role in ROLES)
    now, before = (forget.summed_loss(logits) for logits in (forget.logits, forget.reference))
    idk_now, idk_before = (alternative.summed_loss(logits) for logits in (alternative.logits, alternative.reference))
    point = (idk_before - idk_now).detach().mean()
    npo = -functional.logsigmoid(BETA * (now - before)).mean() * 2 / BETA
    dpo = -functional.logsigmoid(BETA * ((now - idk_now) - (before - idk_before))).mean() * 2 / BETA
    kto = 1.0 - functional.logsigmoid(point - BETA * (before - now)).mean() * 2 / BETA
    both = torch.cat([alternative.logits, retain.logits]), torch.cat([alternative.labels, retain.labels])
    return {
        "ga": -forget.mean_loss(),
        "ga-forget-kl": -forget.mean_loss() + forget.divergence(),
        "grad-diff": -forget.mean_loss() + retain.mean_loss(),
        "ga-kl": -forget.mean_loss() + retain.divergence(),
        "idk": functional.cross_entropy(both[0].flatten(0, 1), both[1].flatten()),
        "dpo-idk": dpo,
        "dpo-idk-rt": dpo + retain.mean_loss(),
        "npo": npo,
        "npo-rt": npo + retain.mean_loss(),
        "npo-kl": npo + retain.divergence(),
        "kto-idk": kto,
        "kto-idk-rt": kto + retain.mean_loss(),
    }


OURS: list[UnlearningObjective] = [
    GradientAscent(),
    GradientAscentForgetKL(),
    GradientDifference(),
    GradientAscentKL(),
    IDK(),
    DPOIDK(beta=BETA),
    DPOIDKRetain(beta=BETA),
    NPO(beta=BETA),
    NPORetain(beta=BETA),
    NPOKL(beta=BETA),
    KTOIDK(beta=BETA),
    KTOIDKRetain(beta=BETA),
]


@pytest.mark.parametrize("objective", OURS, ids=[objective.name for objective in OURS])
def test_loss_and_gradient(objective: UnlearningObjective, step: dict[str, Padded]) -> None:
    theirs = released(step)[objective.name]
    scores: dict[str, Any] = {role: step[role].scores() for role in objective.roles}
    alternative = step["alternative"].scores()
    weight = torch.ones(ROWS, dtype=torch.float64)
    batch = objective.batch(scores, StepInputs(weight, step_kl=alternative.log_ratio.detach().mean()))
    weights = objective.weights(batch)
    parts = [(weights[name] * value).sum() / weights[name].sum() for name, value in objective.terms(batch).items()]
    ours = torch.stack(parts).sum()
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)
    for role in objective.roles:
        mine, other = (torch.autograd.grad(loss, step[role].logits, retain_graph=True)[0] for loss in (ours, theirs))
        assert other.abs().max() > 0
        assert torch.allclose(mine, other, rtol=1e-10, atol=1e-12)
