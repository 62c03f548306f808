"""C-MORL to a given hypervolume, against PGMORL of morl-baselines: same environment, steps, nets and PPO settings; in turn.

The environment is a point on a plane with two goals and 25 steps an episode, whose front is smooth. Each pair of runs has a
seed; printed are both hypervolumes after all steps, seconds, steps a second, and how long C-MORL takes to what PGMORL reached.
Evaluation is counted in C-MORL's steps, and is not in PGMORL's. One thread each.

morl-baselines (with wandb, which it imports) may be in an environment of its own: `--peer-python PATH`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

ENVIRONMENT, REFERENCE, EPISODE = "paperworks-bench/TwoGoals-v0", (-40.0, -40.0), 25
POLICIES, COPIES, ROLLOUT = 6, 4, 64  # of the peer; its iteration is the product in steps
EVALUATION_EPISODES = 1  # the environment has no chance


class TwoGoals(gymnasium.Env[Any, Any]):
    """A point starts at (0, 1) and moves by a tenth of the action; rewards: minus the distance to (-1, 0), and to (1, 0)."""

    observation_space = gymnasium.spaces.Box(-10, 10, (3,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    reward_space = gymnasium.spaces.Box(-100, 0, (2,), np.float32)
    reward_dim = 2
    goals = np.array([[-1.0, 0.0], [1.0, 0.0]])

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.place, self.age = np.array([0.0, 1.0]), 0
        return self._seen(), {}

    def step(self, action: Any) -> Any:
        self.place = np.clip(self.place + 0.1 * np.clip(action, -1, 1), -3, 3)
        self.age += 1
        paid = -np.linalg.norm(self.goals - self.place, axis=1)
        return self._seen(), paid.astype(np.float32), self.age == EPISODE, False, {}

    def _seen(self) -> Any:
        return np.array([*self.place, self.age / EPISODE], np.float32)


def run_peer(seed: int, steps: int) -> list[list[Any]]:
    """PGMORL: [seconds, points of its archive] after every evaluation."""
    sys.modules.setdefault("wandb", types.ModuleType("wandb"))
    import torch
    from morl_baselines.multi_policy.pgmorl.pgmorl import PGMORL

    torch.set_num_threads(1)
    iterations = steps // (POLICIES * COPIES * ROLLOUT)
    warm = max(2, iterations * 2 // 5)
    agent = PGMORL(
        env_id=ENVIRONMENT, origin=np.array(REFERENCE), num_envs=COPIES, pop_size=POLICIES, warmup_iterations=warm,
        steps_per_iteration=ROLLOUT, evolutionary_iterations=max(1, (iterations - warm) // 2), log=False, seed=seed,
        gamma=0.995, learning_rate=1e-3, num_minibatches=4, device="cpu",
    )  # fmt: skip
    found: list[list[Any]] = []
    begin = time.perf_counter()
    inner = agent._PGMORL__eval_all_agents

    def recorded(**given: Any) -> None:
        inner(**given)
        found.append([time.perf_counter() - begin, [list(map(float, point)) for point in agent.archive.evaluations]])

    agent._PGMORL__eval_all_agents = recorded
    import mo_gymnasium

    agent.train(steps, mo_gymnasium.make(ENVIRONMENT), np.array(REFERENCE))
    return found


def run_ours(seed: int, steps: int) -> list[list[Any]]:
    """C-MORL: the same, after every leg."""
    import torch

    from paperworks.control.multi_objective.c_morl import CMORL, CMORLOptions
    from paperworks.control.multi_objective.environments import GymnasiumEnvironments
    from paperworks.control.multi_objective.search import Trainer

    torch.set_num_threads(1)
    options = CMORLOptions(
        steps=steps, weight_step=0.2, select=3, copies=COPIES, rollout_steps=ROLLOUT, minibatches=4, learning_rate=1e-3,
        updates_a_leg=4, evaluate_every=2, eval_episodes=EVALUATION_EPISODES, eval_gamma=0.995,
    )  # fmt: skip
    environments, evaluation = GymnasiumEnvironments(TwoGoals), GymnasiumEnvironments(TwoGoals)
    search, found = CMORL(options, environments.spaces, REFERENCE, seed), []
    trainer, begin = Trainer([search], environments, evaluation), time.perf_counter()
    while trainer.leg():
        found.append([time.perf_counter() - begin, search.archive.points.tolist()])
    return found


def peer_process(python: str, seed: int, steps: int) -> list[list[Any]]:
    """The peer's run in its own interpreter; empty, with a line on what to do, where it is not installed."""
    words = [python, "-W", "ignore", str(Path(__file__).resolve()), "--as-peer", str(seed), "--steps", str(steps)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        print(f"morl-baselines does not run there ({last}); install it and give --peer-python PATH", flush=True)
        return []
    found: list[list[Any]] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def report(seeds: Sequence[int], steps: int, python: str) -> None:
    from paperworks.control.multi_objective.pareto import hypervolume

    reference = np.array(REFERENCE)

    def volumes(found: list[list[Any]]) -> list[tuple[float, float]]:
        return [(seconds, hypervolume(np.asarray(points).reshape(-1, 2), reference)) for seconds, points in found]

    ratios, rates = [], []
    for seed in seeds:
        ours, theirs = volumes(run_ours(seed, steps)), volumes(peer_process(python, seed, steps))
        end, last = ours[-1]
        if not theirs:
            print(f"seed {seed}: hypervolume C-MORL {last:.1f} in {end:.1f} s ({steps / end:.0f} steps/s)")
            continue
        target = theirs[-1][1]
        reached = next((seconds for seconds, volume in ours if volume >= target), None)
        shown = "not reached" if reached is None else f"{reached:.1f} s, {theirs[-1][0] / reached:.1f}x faster"
        print(
            f"seed {seed}: hypervolume C-MORL {last:.1f} in {end:.1f} s ({steps / end:.0f} steps/s), PGMORL {target:.1f} in "
            f"{theirs[-1][0]:.1f} s ({steps / theirs[-1][0]:.0f} steps/s); C-MORL to PGMORL's: {shown}",
            flush=True,
        )
        ratios.append(0.0 if reached is None else theirs[-1][0] / reached)
        rates.append(theirs[-1][0] / end)
    if ratios:
        told = f"{statistics.median(ratios):.1f}x (median); steps/s: {statistics.median(rates):.1f}x"
        print(f"to PGMORL's hypervolume: {told}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=30_000)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--as-peer", type=int, metavar="SEED", help=argparse.SUPPRESS)
    args = parser.parse_args()
    gymnasium.register(ENVIRONMENT, entry_point=TwoGoals)
    if args.as_peer is not None:
        print(json.dumps(run_peer(args.as_peer, args.steps)))
        return 0
    report(range(args.seeds), args.steps, args.peer_python)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
