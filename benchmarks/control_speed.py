"""Gradient steps a second of algorithms on logs against d3rlpy 2.8: the same log, nets of 256-256, batches of 256; in turn.

d3rlpy needs another gymnasium than paperworks, so it runs in a Python of its own:

    python -m venv d3rlpy && d3rlpy/bin/pip install -c constraints.txt torch d3rlpy==2.8.*
    python benchmarks/control_speed.py --d3rlpy d3rlpy/bin/python      (or the variable PAPERWORKS_D3RLPY_PYTHON)

A step is what a run does: draw a batch, update. Both processes stay alive and take turns of a few steps; a ratio is of the
medians. PRDC is also timed with the search of its authors' code (scipy's KDTree), in our own step. Without d3rlpy our own
figures are shown alone. The log is synthetic, noisy oscillators seen through a random mixture; `--log FILE` takes a real one.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from paperworks.control.batches import Draws, Log
from paperworks.control.datasets import from_arrays, read_transitions
from paperworks.control.learner import Learner, Shapes
from paperworks.control.offline import offline_learner
from paperworks.control.policy import Normaliser
from paperworks.control.transitions import Transitions
from paperworks.core.devices import keep_freed_memory

VARIABLE = "PAPERWORKS_D3RLPY_PYTHON"
STEPS = {"td3-bc": 100, "iql": 80, "cql": 8, "prdc": 6}  # a turn of one run
EPISODE = 1000


def synthetic_log(rows: int, state: int, action: int, seed: int = 0) -> Transitions:
    """Episodes of oscillators with drifting phases; actions follow the state, with noise."""
    draw = np.random.default_rng(seed)
    count = -(-rows // EPISODE)
    mixture = draw.normal(size=(state + 8, state)) / np.sqrt(8)
    lead = draw.normal(size=(state, action)) / np.sqrt(state)
    phase, speed = draw.uniform(0, 2 * np.pi, (count, 4)), draw.uniform(0.1, 0.5, 4)
    drift = draw.normal(size=(count, state))
    states, actions = (np.empty((count, EPISODE, width), np.float32) for width in (state, action))
    for at in range(EPISODE):
        phase = phase + speed + 0.05 * draw.normal(size=phase.shape)
        drift = 0.9 * drift + np.sqrt(1 - 0.9**2) * draw.normal(size=drift.shape)
        states[:, at] = np.tanh(np.concatenate([np.cos(phase), np.sin(phase), 0.7 * drift], 1) @ mixture)
        actions[:, at] = np.tanh(states[:, at] @ lead + 0.5 * draw.normal(size=(count, action)))
    found = states.reshape(-1, state)[:rows]
    ends = np.zeros(rows, dtype=bool)
    ends[EPISODE - 1 :: EPISODE] = True
    return from_arrays(
        {
            "observations": (found - found.mean(0)) / found.std(0), "actions": actions.reshape(-1, action)[:rows],
            "rewards": found[:, 0], "terminations": np.zeros(rows, bool), "truncations": ends,
            "next_observations": np.roll((found - found.mean(0)) / found.std(0), -1, 0),
        }
    )  # fmt: skip


class Ours:
    """Seeds of an algorithm side by side."""

    def __init__(self, name: str, log: Transitions, seeds: int = 1) -> None:
        cls: type[Learner] = offline_learner(name)
        width, none = log.observations.shape[1], Normaliser.none(log.observations.shape[1])
        self.log = Log(log, none.mean, none.deviation, torch.device("cpu"))
        began = time.perf_counter()
        self.learner = cls(Shapes(width, log.actions.shape[1]), cls.options_class(), range(seeds), self.log)
        self.made = time.perf_counter() - began
        self.draws = Draws(range(seeds), 256, len(self.log), torch.device("cpu"))
        self.done = 0

    def steps(self, count: int) -> float:
        began = time.perf_counter()
        for _ in range(count):
            self.learner.update(self.log.batch(self.draws.rows(self.done)), self.draws, self.done)
            self.done += 1
        return time.perf_counter() - began


class AuthorsTree:
    """The search of PRDC's authors: scipy's tree, one neighbour, as many workers as there are threads."""

    def __init__(self, rows: Tensor) -> None:
        self._tree = cKDTree(rows.numpy())

    def query(self, points: Tensor, k: int = 1) -> Tensor:
        found = self._tree.query(points.numpy(), k=[k], workers=torch.get_num_threads())[1]
        return torch.from_numpy(np.asarray(found))


class Peer:
    """d3rlpy in its own Python."""

    def __init__(self, python: str, threads: int) -> None:
        script = Path(__file__).with_name("control_speed_d3rlpy.py")
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": ""}
        self._process = subprocess.Popen(
            [python, str(script), str(threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, env=environment,
        )  # fmt: skip

    def ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("d3rlpy's process ended: run benchmarks/control_speed_d3rlpy.py by hand to see why")
        found: dict[str, Any] = json.loads(line)
        return found

    def steps(self, count: int) -> float:
        return float(self.ask({"steps": count})["seconds"])


def in_turn(ways: Mapping[str, Callable[[int], float]], steps: int, turns: int) -> dict[str, list[float]]:
    """Seconds a step of every way, a few turns of each; a first, short turn of each is not counted."""
    for way in ways.values():
        way(max(1, steps // 4))
    return {
        name: [each[name] / steps for each in turned]
        for turned in [[{name: way(steps) for name, way in ways.items()} for _ in range(turns)]]
        for name in ways
    }


def shown(title: str, seconds: Mapping[str, list[float]]) -> float:
    """Print steps a second and the ratio of each other way's time to ours; returns the smallest ratio."""
    middle = {name: statistics.median(found) for name, found in seconds.items()}
    parts = [f"{name} {1 / each:.1f}" for name, each in middle.items()]
    ratios = []
    for name, found in seconds.items():
        if name == "ours":
            continue
        pairs = [theirs / own for theirs, own in zip(found, seconds["ours"], strict=True)]
        ratios.append(middle[name] / middle["ours"])
        parts.append(f"{ratios[-1]:.2f}x {name} [{min(pairs):.2f}, {max(pairs):.2f}]")
    print(f"{title}: steps a second: {', '.join(parts)}", flush=True)
    return min(ratios, default=float("nan"))


def saved(log: Transitions, path: Path) -> str:
    names = ("observations", "actions", "rewards", "terminations", "truncations")
    np.savez(path, **{name: getattr(log, name) for name in names})
    return str(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--d3rlpy", default=os.environ.get(VARIABLE), metavar="PYTHON", help=f"default: ${VARIABLE}")
    parser.add_argument("--what", nargs="+", default=["td3-bc", "iql", "cql", "seeds", "prdc"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of PRDC's log")
    parser.add_argument("--dimensions", type=int, nargs="+", default=[14, 23], help="of PRDC's pairs")
    parser.add_argument("--log", help="a log of your own in place of the synthetic ones")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()  # as training does
    peer = Peer(args.d3rlpy, args.threads) if args.d3rlpy else None
    if peer is None:
        print(f"no d3rlpy to compare with: give its Python as --d3rlpy, or in ${VARIABLE}; ours alone:")
    own = read_transitions(args.log) if args.log else None
    with tempfile.TemporaryDirectory() as folder:
        log = own or synthetic_log(100_000, 17, 6)
        path = saved(log, Path(folder, "log.npz")) if peer else ""
        for name in (name for name in args.what if name in STEPS and name != "prdc"):
            ways: dict[str, Callable[[int], float]] = {"ours": Ours(name, log).steps}
            if peer is not None:
                peer.ask({"make": name, "log": path, "runs": 1})
                ways["d3rlpy"] = peer.steps
            shown(name, in_turn(ways, STEPS[name], args.turns))
        if "seeds" in args.what:
            ways = {"ours": Ours("td3-bc", log, 5).steps}
            if peer is not None:
                peer.ask({"make": "td3-bc", "log": path, "runs": 5})
                ways["d3rlpy"] = peer.steps
            shown("td3-bc, five seeds at once against five runs", in_turn(ways, STEPS["td3-bc"] // 4, args.turns))
        for dimensions in args.dimensions if "prdc" in args.what else ():
            action = 3 if dimensions < 20 else 6
            log = own or synthetic_log(args.rows, dimensions - action, action)
            prdc = Ours("prdc", log)
            ways = {"ours": prdc.steps}
            authors = Ours("td3-bc", log.take(slice(0, 1000)))  # the same step, another search
            authors.log, authors.learner = prdc.log, _with_tree(prdc)
            authors.draws = prdc.draws
            ways["authors' tree"] = authors.steps
            if peer is not None:
                peer.ask({"make": "prdc", "log": saved(log, Path(folder, "prdc.npz")), "runs": 1})
                ways["d3rlpy"] = peer.steps
            title = f"prdc, {len(log):,} rows of {dimensions} numbers (index made in {prdc.made:.1f} s)"
            shown(title, in_turn(ways, STEPS["prdc"], args.turns))
    return 0


def _with_tree(prdc: Ours) -> Learner:
    import copy

    found: Any = copy.copy(prdc.learner)
    pairs = torch.cat([found.options.beta * prdc.log.states, prdc.log.actions], 1)
    found._indices = [AuthorsTree(pairs)]
    return found


if __name__ == "__main__":
    raise SystemExit(main())
