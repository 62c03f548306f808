from dataclasses import replace

import pytest
import torch
from torch.nn.functional import logsigmoid

from paperworks.core.errors import OptionError
from paperworks.language.objectives.npo import NPO
from paperworks.language.objectives.objective import ResponseLogps, UnlearningLogps
from paperworks.language.objectives.unlearning import GradientAscent
from paperworks.language.objectives.unlearning_alternatives import DPOIDK, IDK
from paperworks.language.testbeds.forget_logistic import (
    RIDGE,
    Method,
    bernoulli_kl,
    forget_slope,
    make_problem,
    unlearn,
)

METHODS = [Method("ga"), Method("npo", beta=2.0), Method("idk"), Method("dpo", beta=2.0), Method("kto", beta=2.0)]


@pytest.fixture(scope="module")
def problem():
    return make_problem([0, 1])


def loss_to_forget(method, sign, alternative, reference, logit):
    """The loss of every example, from the language models' objectives; KTO's here has another point of comparison."""
    sides = [
        ResponseLogps(logsigmoid(label * logit), torch.ones_like(logit), logsigmoid(label * reference))
        for label in (sign, alternative)
    ]
    if method.forget == "kto":
        anchor = bernoulli_kl(logit, reference).mean(-1, keepdim=True).detach()
        return -2 / method.beta * logsigmoid(method.beta * (anchor - sides[0].log_ratio))
    objective = {
        "ga": GradientAscent(),
        "npo": NPO(beta=method.beta),
        "idk": IDK(),
        "dpo": DPOIDK(beta=method.beta),
    }[method.forget]
    return objective.loss(UnlearningLogps(sides[0], sides[1], sides[0], None))


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.forget)
def test_slopes_are_those_of_the_objectives(method) -> None:
    generator = torch.Generator().manual_seed(0)
    reference, logit = torch.randn(2, 100, generator=generator, dtype=torch.float64).mul(3).unbind(0)
    sign, alternative = torch.randn(2, 100, generator=generator, dtype=torch.float64).sign().unbind(0)
    logit.requires_grad_(True)
    (slope,) = torch.autograd.grad(loss_to_forget(method, sign, alternative, reference, logit).sum(), logit)
    assert torch.allclose(forget_slope(method, sign, alternative, reference, logit.detach()), slope, atol=1e-12)


def test_fits_are_minima(problem) -> None:
    for weights, parts in ((problem.start, [problem.retain, problem.forget]), (problem.retrained, [problem.retain])):
        features = torch.cat([part.features for part in parts], dim=1)
        sign = torch.cat([part.sign for part in parts], dim=1)
        slope = -sign * torch.sigmoid(-sign * (features @ weights[..., None])[..., 0])
        gradient = (slope[:, None] @ features)[:, 0] / sign.shape[1] + RIDGE * weights
        assert gradient.abs().max() < 1e-10


def test_the_retrained_model_has_nothing_to_forget_and_the_start_has(problem) -> None:
    gold = problem.retrained[:, None]
    assert problem.divergence(problem.fresh_forget, gold).abs().max() < 1e-12
    assert problem.divergence(problem.fresh_forget, problem.start[:, None]).min() > 0.5
    assert problem.divergence(problem.fresh_retain, problem.start[:, None]).max() < 0.1


def test_divergence_is_exact_for_logits_beyond_a_float() -> None:
    large = torch.tensor([0.0, 1e4, -1e4], dtype=torch.float64)
    assert bernoulli_kl(large, large).tolist() == [0.0, 0.0, 0.0]
    assert bernoulli_kl(large[1:], large[1:].flip(0)).tolist() == pytest.approx([1e4, 1e4])


def test_overlapping_inputs_leave_less_to_forget() -> None:
    apart, over = (make_problem([0], alpha=alpha) for alpha in (1.0, 0.0))
    assert unlearn(over, METHODS[0], [1e-3], steps=0).total < 0.2 * unlearn(apart, METHODS[0], [1e-3], steps=0).total


@pytest.mark.parametrize("retain", ["none", "rt", "kl"])
def test_seeds_and_rates_do_not_see_each_other(problem, retain) -> None:
    method = Method("npo", retain)
    together = unlearn(problem, method, [1e-3, 1e-2], steps=40, record_every=20)
    alone = unlearn(make_problem([1]), method, [1e-2], steps=40, record_every=20)
    assert together.steps.tolist() == [0, 20, 40]
    for name in ("forget_kl", "retain_kl", "forget_nll", "distance"):
        assert torch.allclose(getattr(together, name)[:, 1, 1], getattr(alone, name)[:, 0, 0], rtol=1e-9)


def test_a_retain_loss_alone_moves_from_the_fit_to_the_retrained_model(problem) -> None:
    silent = replace(problem, forget=replace(problem.forget, features=torch.zeros_like(problem.forget.features)))
    course = unlearn(silent, Method("ga", "rt"), [0.05], steps=200, record_every=200)
    assert bool((course.total[-1] < course.total[0]).all())


def test_npo_with_a_small_beta_is_gradient_ascent(problem) -> None:
    small, ascent = (unlearn(problem, method, [1e-3], steps=50) for method in (Method("npo", beta=1e-7), Method("ga")))
    assert torch.allclose(small.distance, ascent.distance, rtol=1e-5)


def test_npo_and_retain_loss_come_nearer_to_the_retrained_model_than_ascent_and_retain_loss(problem) -> None:
    npo = unlearn(problem, Method("npo", "rt"), [0.1], steps=300).total.amin(0)
    ascent = unlearn(problem, Method("ga", "rt"), [3e-4, 1e-3], steps=1500).total.amin(0).amin(-1, keepdim=True)
    assert bool((npo < ascent).all())


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"forget": "nop"}, r"option forget='nop': no such term \(did you mean 'npo'\?\)"),
        ({"forget": "npo", "retain": "tr"}, "option retain='tr': no such term"),
        ({"forget": "npo", "beta": 0.0}, "option beta=0.0: expected a number above 0"),
    ],
)
def test_a_wrong_method_says_what_is_allowed(options, line) -> None:
    with pytest.raises(OptionError, match=line):
        Method(**options)
