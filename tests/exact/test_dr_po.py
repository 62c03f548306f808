"""Dataset reset policy optimisation against closed forms (arXiv 2404.08495)."""

from __future__ import annotations

import random

import pytest
import torch

from paperworks.language.objectives.dpo import logistic
from paperworks.language.sources.resets import ResetBank, written_by_policy
from paperworks.language.testbeds.lock import natural_gradient_step

END = 99


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def step(start: torch.Tensor, policy: torch.Tensor, q: torch.Tensor, step_size: float, kl_weight: float) -> list[float]:
    return natural_gradient_step(start.log(), policy.log(), q, step_size=step_size, kl_weight=kl_weight).exp().tolist()


def test_without_kl_the_step_is_exponentiated_gradient() -> None:
    half = tensor(0.5, 0.5)
    assert step(half, half, tensor(1, 0), 1.0, 0.0) == pytest.approx([0.731059, 0.268941], abs=5e-7)


def test_the_step_lies_between_the_start_and_the_policy() -> None:
    start, policy, q = tensor(0.7, 0.2, 0.1), tensor(0.3, 0.3, 0.4), tensor(0, 1, 2)
    assert step(start, policy, q, 0.5, 0.5) == pytest.approx([0.246336, 0.286043, 0.467621], abs=5e-7)


def test_an_endless_step_forgets_the_policy() -> None:
    start, policy, q = tensor(0.7, 0.2, 0.1), tensor(0.3, 0.3, 0.4), tensor(0, 1, 2)
    assert step(start, policy, q, 1e12, 0.5) == pytest.approx([0.091652, 0.193491, 0.714858], abs=5e-7)


def test_the_step_minimises_what_it_is_defined_by() -> None:
    start, policy, q = tensor(0.7, 0.2, 0.1), tensor(0.3, 0.3, 0.4), tensor(0, 1, 2)

    def objective(p: torch.Tensor) -> float:
        to_start, to_policy = (p * (p / start).log()).sum(), (p * (p / policy).log()).sum()
        return (-(q * p).sum() + 0.5 * to_start + to_policy / 0.5).item()

    best = tensor(*step(start, policy, q, 0.5, 0.5))
    for a, b in ((0, 1), (1, 2), (0, 2)):
        for nudge in (-1e-3, 1e-3):
            other = best.clone()
            other[a] += nudge
            other[b] -= nudge
            assert objective(other) > objective(best)


def test_reward_model_loss() -> None:
    # r(tau1) - r(tau0) = 0.9; the loss is that of the preferred response's margin
    assert logistic(tensor(0.9)).item() == pytest.approx(0.341154, abs=5e-7)
    assert logistic(tensor(-0.9)).item() == pytest.approx(1.241154, abs=5e-7)


def responses(count: int) -> list[tuple[str, list[int]]]:
    chance = random.Random(0)
    return [
        (f"prompt {n % (count // 2)}", [chance.randrange(50) for _ in range(chance.randrange(2, 12))] + [END])
        for n in range(count)
    ]


def test_a_prefix_is_the_beginning_of_a_reset_response_of_its_prompt() -> None:
    logged = responses(40)
    bank = ResetBank.of(logged, end=END)
    keys = [key for key, _ in logged] * 20
    lengths = []
    for key, prefix in zip(keys, bank.draw(keys, seed=1).prefixes, strict=True):
        origins = [ids for known, ids in logged if known == key and tuple(ids[: len(prefix)]) == prefix]
        assert origins and 1 <= len(prefix) <= max(map(len, origins)) - 1 and END not in prefix
        lengths.append(len(prefix))
    assert min(lengths) == 1


def test_lengths_are_uniform_from_1_to_one_less_than_the_response() -> None:
    bank = ResetBank.of([("x", [1, 2, 3, 4, END])], end=END)
    prefixes = bank.draw(["x"] * 20_000, seed=0).prefixes
    assert set(prefixes) == {(1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)}
    for length in (1, 2, 3, 4):
        assert sum(len(prefix) == length for prefix in prefixes) / 20_000 == pytest.approx(0.25, abs=0.01)


def test_the_order_of_the_reset_file_changes_nothing() -> None:
    logged = responses(40)
    shuffled = random.Random(1).sample(logged, len(logged))
    keys = [key for key, _ in logged]
    assert ResetBank.of(logged, end=END).draw(keys, seed=2) == ResetBank.of(shuffled, end=END).draw(keys, seed=2)


def test_share_0_resets_nothing_and_masks_nothing() -> None:
    logged = responses(10)
    drawn = ResetBank.of(logged, end=END).draw([key for key, _ in logged], share=0.0)
    assert drawn.prefixes == ((),) * 10 and drawn.share == 0
    assert written_by_policy(drawn.prefixes, [3] * 10).all()
