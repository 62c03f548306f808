"""Learning while acting: what is lived through is stored as it was, a killed run resumes, and SAC learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from paperworks.control.batches import Log
from paperworks.control.environments import roll_out, spaces_of
from paperworks.control.learner import Shapes
from paperworks.control.online.lanes import Lanes
from paperworks.control.online.loop import Around, OnlineOptions, train_online
from paperworks.control.online.replay import Replay
from paperworks.control.online.sac import SAC, SACOptions
from paperworks.control.policy import ControlPolicy, Normaliser
from paperworks.control.transitions import Transitions
from paperworks.core.errors import RunError

CPU = torch.device("cpu")


def sac(seeds: list[int], **options: Any) -> SAC:
    nothing = Replay(Shapes(2, 1), len(seeds), 1, CPU)
    return SAC(Shapes(2, 1), SACOptions(hidden=(32, 32), learning_rate=1e-3, **options), seeds, nothing)


def around(point: str) -> Around:
    return Around(point, Normaliser.none(2), spaces_of(point).bounds)


def test_lanes_store_where_an_action_led_and_show_the_next_episode(point: str) -> None:
    lanes = Lanes(point, [0, 1])
    starts = lanes.seen.copy()
    found = None
    for _ in range(20):
        found = lanes.step(np.zeros((2, 1), np.float32))
    assert found is not None and found.truncated.all() and not found.terminated.any()
    assert np.array_equal(found.seen, starts)  # it stood still to the end
    assert not np.array_equal(lanes.seen, starts)  # and a new episode shows
    assert lanes.begun == [2, 2] and lanes.returns == pytest.approx((-20 * abs(starts[:, 0])).tolist(), rel=1e-5)
    again = Lanes(point, [0], begun=[1])
    assert np.array_equal(again.seen[0], lanes.seen[0])


def test_a_replay_begins_with_a_log_and_grows(log: Transitions) -> None:
    none = Normaliser.none(2)
    known = Log(log, none.mean, none.deviation, CPU)
    replay = Replay(Shapes(2, 1), 2, len(log) + 1, CPU, start=known)
    one = torch.ones(2)
    row = (torch.zeros(2, 2), torch.zeros(2, 1), one, torch.zeros(2, 2), one, one.bool())
    replay.append(*row)
    assert len(replay) == len(log) + 1
    batch = replay.batch(torch.tensor([[0, len(log)], [1, len(log)]]))
    assert torch.equal(batch.states[:, 0], known.states[:2]) and batch.rewards[:, 1].tolist() == [1, 1]
    with pytest.raises(RunError, match="full"):
        replay.append(*row)


def test_sac_learns_and_a_seed_is_what_it_is_alone(point: str) -> None:
    options = OnlineOptions(steps=600, warm_up=100, batch_size=64, save_every=300)
    learner, replay = sac([0, 1]), Replay(Shapes(2, 1), 2, 600, CPU)
    found = train_online(learner, around(point), replay, options)
    assert min(found[-1][1]) > -4 > max(found[0][1])
    alone, own = sac([1]), Replay(Shapes(2, 1), 1, 600, CPU)
    train_online(alone, around(point), own, OnlineOptions(steps=200, warm_up=100, batch_size=64, save_every=300))
    torch.testing.assert_close(own.states[0, :200], replay.states[1, :200], atol=1e-4, rtol=1e-4)


def test_a_killed_run_resumes_to_the_same_policy(point: str, tmp_path: Path) -> None:
    options = OnlineOptions(steps=120, warm_up=30, batch_size=16, save_every=40, eval_episodes=2)

    def go(folder: Path | None, *, stop: int | None = None, resume: bool = False) -> tuple[SAC, Replay]:
        learner, replay = sac([0]), Replay(Shapes(2, 1), 1, 120, CPU)

        def killed(done: int, *_: Any) -> None:
            if stop is not None and done >= stop:
                raise SystemExit

        try:
            train_online(learner, around(point), replay, options, folder=folder, resume=resume, on_evaluation=killed)
        except SystemExit:
            assert stop is not None
        return learner, replay

    whole, lived = go(None)
    go(tmp_path, stop=60)
    resumed, again = go(tmp_path, resume=True)
    assert torch.equal(lived.states, again.states) and torch.equal(lived.ends, again.ends)
    for one, two in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, two)
    policy = ControlPolicy(resumed.actor_of(0), around(point).normaliser, around(point).bounds)
    assert roll_out(point, policy.act, 2).lengths.tolist() == [20, 20]
