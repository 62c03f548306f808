"""The locks of HNPG's experiment and what is measured on them: seeds apart, counts, and what blind locks do to bootstraps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from paperworks.control.hybrid.hnpg import HNPGOptions
from paperworks.control.hybrid.rlpd import RLPDOptions
from paperworks.control.testbeds import comblock_trial
from paperworks.control.testbeds.comblock import Comblock
from paperworks.control.testbeds.comblock_trial import Course, cloned, logged, natural_gradient, rlpd
from paperworks.control.testbeds.hnpg_trial import imitated, measures, pooled, settings_horizon, tabular_course
from paperworks.control.testbeds.tabular_lock import Episodes, TabularLock
from paperworks.experiment.results import CellResult, Results
from paperworks.papers.hnpg import ARMS_B, EXPERIMENT, SETTINGS_B, curves


def test_measures_by_hand() -> None:
    rates = torch.tensor([[0.0, 0.0], [0.4, 0.4], [0.8, 0.4], [0.8, 0.4]])
    assert measures(rates, 0, 100, 2) == pytest.approx({"auc": 0.5, "final": 0.5, "episodes": 300, "is_solved": 1})
    assert measures(rates, 0, 100, 1)["episodes"] == 300
    never = measures(rates, 1, 100, 2)
    assert never["episodes"] == 400 and never["is_solved"] == 0


def test_the_report_has_a_figure_a_setting(undrawn_figures: None) -> None:
    cells = [
        CellResult("B", setting, arm.name, seed, {"curve": [0.0, 1.0]}, 0.0, "")
        for setting in ("H=3", "H=5")
        for arm in ARMS_B
        for seed in (0, 1)
    ]
    results = Results(EXPERIMENT, "smoke", Path(), tuple(cells))
    figures = curves("B", ARMS_B, SETTINGS_B, results)
    assert [caption.split(":")[0] for _, caption in figures] == ["H=3", "H=5"]


def test_settings_say_their_horizon() -> None:
    assert settings_horizon("H=15") == (15, False) and settings_horizon("blind, H=3") == (3, True)


def test_half_of_each_of_two_logs_of_equal_size_is_both_together() -> None:
    world = TabularLock.drawn(3, [0, 1])
    parts = [world.play(world.uniform(), 50, name) for name in ("one", "other")]
    both = Episodes(*(torch.cat([getattr(part, name) for part in parts], 2) for name in vars(parts[0])))
    found, wanted = pooled(*(world.logged(part) for part in parts)), world.logged(both)
    for name in ("share", "reward", "onward"):
        seen = wanted.share > 0
        torch.testing.assert_close(getattr(found, name)[seen], getattr(wanted, name)[seen])


def test_imitation_is_the_log_s_policy() -> None:
    world = TabularLock.drawn(3, [0])
    policy = imitated(world.logged(world.play(world.behaviour(), 20_000, "log")), torch.arange(9))
    assert float(world.success(policy)) == pytest.approx(float(world.success(world.behaviour())), abs=0.02)
    assert float(policy.sum(-1).sub(1).abs().max()) < 1e-12


def test_a_blind_lock_misleads_what_bootstraps() -> None:
    """The log alone unlearns what opens the lock; with fresh returns beside it HAC learns it, as it does where it sees."""
    last = {
        (method, setting): float(tabular_course(method, setting, [5], 16.0, 12)[-1])
        for method in ("hac", "offline", "hybrid-td")
        for setting in ("H=3", "blind, H=3")
    }
    assert all(last[method, "H=3"] > 0.95 for method in ("hac", "offline", "hybrid-td"))
    assert last["hac", "blind, H=3"] > 0.9
    assert last["offline", "blind, H=3"] < 0.001 and last["hybrid-td", "blind, H=3"] < 0.001


def test_a_blind_lock_shows_the_step_alone() -> None:
    lock = Comblock(torch.zeros(1, 3, 2, dtype=torch.long), noise=0.0, blind=True)
    seen = lock.observe(torch.tensor([[0, 1, 2]]), 1, [torch.Generator()])
    assert torch.equal(seen[0, 0], seen[0, 1]) and torch.equal(seen[0, 0], seen[0, 2])
    twin = Comblock.drawn(3, [4], twin=True).correct
    assert torch.equal(twin[..., 0], twin[..., 1])


@pytest.mark.parametrize("method", ["hnpg", "trpo", "rlpd", "bc"])
def test_seeds_together_are_seeds_alone(method: str) -> None:
    def course(seeds: list[int]) -> tuple[Tensor, list[Tensor]]:
        lock = Comblock.drawn(3, seeds)
        log = logged(lock, seeds, 40)
        if method == "bc":
            return torch.stack(cloned(lock, seeds, log, 1e-2, updates=3, episodes=50)), []
        if method == "rlpd":
            options = RLPDOptions(hidden=(8,), learning_rate=1e-2)
            found = rlpd(lock, seeds, options, log, 2, 10, updates=3, rows=8)
        else:
            small = HNPGOptions(hidden=(4,), critic_hidden=(4,), critic_steps=2)
            found = natural_gradient(lock, seeds, small, log if method == "hnpg" else None, 2, 10)
        return torch.stack(found.opened), [torch.stack(values) for values in found.numbers.values()]

    (both, numbers), (alone, own) = course([7, 3]), course([3])
    assert torch.equal(both[:, 1:], alone)
    for together, apart in zip(numbers, own, strict=True):
        torch.testing.assert_close(together[:, 1:], apart, atol=1e-5, rtol=1e-4)


def test_a_replay_s_rows_stop_behind_the_last_step() -> None:
    lock = Comblock.drawn(3, [0])
    played = logged(lock, [0], 4)
    batch = played.rows(torch.arange(12)[None])
    assert batch.goes_on[0].tolist() == [1.0] * 8 + [0.0] * 4
    assert torch.equal(batch.states[0, 5], played.states[0, 1, 1])
    assert torch.equal(batch.next_states[0, 5], played.states[0, 2, 1])
    assert float(played.opened) == float((played.rewards[0, -1] >= 1).float().mean())
    assert comblock_trial._joined([played, played]).rewards.shape == (1, 3, 8)
    assert Course().opened == []
