"""Fitting a value head: what it keeps, what it reports, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from paperworks.core.errors import DataError, OptionError
from paperworks.language.values import PromptStates, ValueFitOptions, ValueHead, ValueHeadOptions, fit_value, predict


def prompts(count: int = 60, seed: int = 0) -> tuple[PromptStates, torch.Tensor]:
    """States of 1 to 4 positions whose first number, averaged, is what the target depends on; targets in (0, 3)."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 5, (count,), generator=generator).tolist()
    values = torch.randn(sum(lengths), 8, generator=generator)
    means = torch.stack([part[:, 0].mean() for part in values.split(lengths)])
    return PromptStates(values, tuple(lengths)), 3 * torch.sigmoid(2 * means)


@pytest.mark.parametrize("kind", ["attention", "mean", "mlp"])
def test_a_head_learns_what_states_tell(kind: Any) -> None:
    states, targets = prompts()
    head = ValueHead(8, ValueHeadOptions(kind, low=0.0, high=3.0))
    fit = fit_value(head, states, targets, ValueFitOptions(epochs=40, learning_rate=2e-2))
    assert fit.explained > 0.7 and not fit.warning
    assert fit.mse == pytest.approx(float(((predict(head, states) - targets) ** 2).mean()))


def test_the_best_epoch_is_kept_and_the_start_is_the_constant() -> None:
    states, targets = prompts()
    head = ValueHead(8, ValueHeadOptions("mean", low=0.0, high=3.0))
    fit = fit_value(head, states, targets, ValueFitOptions(epochs=5, learning_rate=0.5))
    assert len(fit.mse_by_epoch) == 6
    assert fit.mse == min(fit.mse_by_epoch) == fit.mse_by_epoch[fit.kept_epoch]
    assert fit.mse_by_epoch[0] == pytest.approx(fit.constant_mse, rel=1e-4)
    assert fit.constant_mse == pytest.approx(float(targets.var(unbiased=False)), rel=1e-4)


def test_targets_that_states_do_not_tell_give_a_warning_where_prompts_are_held_out() -> None:
    states, _ = prompts(40)
    noise = torch.rand(40, generator=torch.Generator().manual_seed(9))
    head = ValueHead(8, ValueHeadOptions("mlp"))
    fit = fit_value(head, states, noise, ValueFitOptions(epochs=30, learning_rate=0.05, held_out=0.5))
    assert (fit.prompts, fit.held_out_prompts) == (20, 20)
    assert "no better than a constant" in fit.warning
    on_training = fit_value(ValueHead(8, ValueHeadOptions("mlp")), states, noise, ValueFitOptions(epochs=30))
    assert on_training.mse < on_training.constant_mse  # as released: the training error always finds something


def test_constant_targets_are_fitted_by_a_constant_without_a_warning() -> None:
    states, _ = prompts(10)
    head = ValueHead(8, ValueHeadOptions(low=0.0, high=3.0))
    fit = fit_value(head, states, torch.full((10,), 1.5))
    assert fit.constant_mse == 0 and not fit.warning
    assert torch.allclose(predict(head, states), torch.full((10,), 1.5), atol=1e-3)


def test_the_seed_decides_and_the_global_generator_is_left_alone() -> None:
    states, targets = prompts(20)

    def fitted(seed: int) -> torch.Tensor:
        head = ValueHead(8, ValueHeadOptions("mean"))
        fit_value(head, states, targets, ValueFitOptions(epochs=3, learning_rate=0.05, seed=seed))
        return predict(head, states)

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = fitted(0)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(fitted(0), first) and not torch.equal(fitted(1), first)


def test_values_do_not_depend_on_the_batch() -> None:
    states, _ = prompts()
    head = ValueHead(8, ValueHeadOptions("attention", heads=4))
    assert torch.allclose(predict(head, states, batch=1), predict(head, states, batch=64), atol=1e-6)
    assert torch.allclose(predict(head, states, [7, 2]), predict(head, states)[[7, 2]], atol=1e-6)


def test_bad_input() -> None:
    states, targets = prompts(4)
    head = ValueHead(8)
    with pytest.raises(DataError, match="4 prompts but 3 targets"):
        fit_value(head, states, targets[:3])
    with pytest.raises(DataError, match="target 2 is not a finite number"):
        fit_value(head, states, targets.index_fill(0, torch.tensor(1), torch.nan))
    with pytest.raises(DataError, match="leaves none to train on"):
        fit_value(head, states, targets, ValueFitOptions(held_out=0.99))
    with pytest.raises(OptionError, match="epochs=0 is out of range"):
        ValueFitOptions(epochs=0)
