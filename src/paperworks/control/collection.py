"""Logs of a gymnasium environment at several levels of quality, by a behaviour policy that is trained here.

SAC (DQN where actions are discrete) learns the task; snapshots of it are kept. `expert` is the best of them, `medium` the
first that earns a third of what lies between random and expert (as D4RL's), `replay` all that training lived through until
then. Others are mixtures of whole episodes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from paperworks.control.environments import Spaces, random_returns, spaces_of
from paperworks.control.learner import Learner, LearnerOptions, Shapes
from paperworks.control.minari_sets import write_minari
from paperworks.control.online.dqn import OnlineDQN, OnlineDQNOptions
from paperworks.control.online.lanes import Lanes
from paperworks.control.online.loop import Around, OnlineOptions, train_online
from paperworks.control.online.replay import Replay
from paperworks.control.online.sac import SAC, SACOptions
from paperworks.control.policy import ControlPolicy, DiscreteActions, Normaliser
from paperworks.control.training import OnMetrics
from paperworks.control.transitions import Transitions
from paperworks.core.errors import OptionError, RunError, did_you_mean
from paperworks.core.files import read_json, write_json_atomic
from paperworks.core.options import check_ranges, option
from paperworks.core.seeding import derive_seed, torch_generator

MIXTURES: Mapping[str, Mapping[str, float]] = {
    "random": {"random": 1.0},
    "medium": {"medium": 1.0},
    "expert": {"expert": 1.0},
    "medium-expert": {"medium": 0.5, "expert": 0.5},
    "mixed": {"random": 0.8, "expert": 0.2},
}
"""What a log is made of: policies, and their shares of its transitions. `mixed` is that of arXiv 2111.04714."""

LEVELS = (*MIXTURES, "replay")


@dataclass(frozen=True)
class CollectOptions(OnlineOptions):
    """How the behaviour policy learns, and how much of it is logged."""

    transitions: int = option(100_000, "of each log", low=1)
    seed: int = option(0, "of the behaviour policy and of the episodes")
    hidden: tuple[int, ...] = option((256, 256), "widths of the behaviour policy's hidden layers")
    learning_rate: float = option(3e-4, "of Adam", above=0)
    gamma: float = option(0.99, "discount", low=0, high=1)

    def __post_init__(self) -> None:
        check_ranges(self)


def levels_of(names: str) -> tuple[str, ...]:
    """The levels named in a list with commas. Raises OptionError for others."""
    found = tuple(each.strip() for each in names.split(",") if each.strip())
    for each in found:
        if each not in LEVELS:
            raise OptionError(
                f"--policy: unknown level {each!r}{did_you_mean(each, LEVELS)}; known: {', '.join(LEVELS)}"
            )
    if not found:
        raise OptionError(f"--policy: expected one or more of {', '.join(LEVELS)}")
    return found


@dataclass(frozen=True)
class Snapshot:
    """The behaviour policy at a step of its training."""

    step: int
    mean_return: float
    folder: Path


@dataclass(frozen=True)
class Behaviours:
    """What logs are made with: the snapshots that levels stand for, and the returns that scores are normalised by."""

    environment: str
    random_return: float
    medium: Snapshot
    expert: Snapshot

    @property
    def references(self) -> tuple[float, float]:
        """Returns at scores 0 and 1."""
        return self.random_return, self.expert.mean_return


def learn_behaviour(
    environment: str,
    options: CollectOptions,
    folder: Path,
    *,
    resume: bool = False,
    on_metrics: OnMetrics | None = None,
) -> Behaviours:
    """Train the behaviour policy, or go on with it; snapshots in `folder/snapshots`. Raises RunError if it learns nothing."""
    spaces = spaces_of(environment)
    learner = _learner(spaces, options)
    around = Around(environment, Normaliser.none(spaces.state), spaces.bounds)

    def keep(done: int, policies: Sequence[ControlPolicy], returns: Sequence[float]) -> None:
        place = folder / "snapshots" / f"step-{done:08d}"
        policy = dataclasses.replace(policies[0], actor=learner.behaviour_of(0))
        policy.save(place)
        write_json_atomic(place.with_suffix(".json"), {"step": done, "return": returns[0]})

    discrete = isinstance(spaces.bounds, DiscreteActions)
    replay = Replay(learner.shapes, 1, options.steps, torch.device("cpu"), discrete=discrete)
    online = OnlineOptions(**{field.name: getattr(options, field.name) for field in dataclasses.fields(OnlineOptions)})
    train_online(
        learner, around, replay, online, folder=folder, resume=resume, on_metrics=on_metrics, on_evaluation=keep
    )
    return behaviours(environment, folder, options.seed)


def behaviours(environment: str, folder: Path, seed: int) -> Behaviours:
    """Which snapshots are medium and expert. Raises RunError where none earns more than a random policy."""
    random_return = float(random_returns(environment, 20, seed=seed).mean())
    snapshots = _snapshots(folder)
    if not snapshots:
        raise RunError(f"{folder}: no snapshot of a behaviour policy there; collect again with --overwrite")
    expert = max(snapshots, key=lambda each: each.mean_return)
    if expert.mean_return <= random_return:
        raise RunError(
            f"{environment}: the behaviour policy earns {expert.mean_return:.4g} at best, a random one "
            f"{random_return:.4g}: give it more --steps"
        )
    third = random_return + (expert.mean_return - random_return) / 3
    medium = next(each for each in snapshots if each.mean_return >= third)
    return Behaviours(environment, random_return, medium, expert)


def collect(
    level: str, made: Behaviours | None, environment: str, options: CollectOptions, folder: Path
) -> tuple[Transitions, Path]:
    """A log of that level, written to `folder/LEVEL` as a Minari data set; `made` may be missing for `random`."""
    if level == "replay":
        assert made is not None
        log = lived_through(folder.parent, made.medium.step)
        about = f"what a behaviour policy for {environment} lived through in its first {made.medium.step} steps"
    else:
        parts = [
            _rolled(name, made, environment, round(share * options.transitions), options.seed)
            for name, share in MIXTURES[level].items()
        ]
        log = joined(parts)
        shares = ", ".join(f"{share:.0%} {name}" for name, share in MIXTURES[level].items())
        about = f"{environment}: {shares}"
    references = None if made is None else made.references
    return log, write_minari(log, folder / level, environment, about=about, references=references)


def collected(folder: Path, level: str) -> Path | None:
    """Where a finished log of that level lies, if it does."""
    place = folder / "datasets" / level
    return place if (place / "data" / "metadata.json").is_file() else None


def lived_through(folder: Path, steps: int) -> Transitions:
    """The first `steps` transitions of a behaviour policy's training."""
    from safetensors.numpy import load_file

    parts = [load_file(part / "rows.safetensors") for part in sorted((folder / "replay").glob("rows-*"))]
    if not parts:
        raise RunError(f"{folder}: what training lived through is not there any more; collect again with --overwrite")
    columns = {name: np.concatenate([part[name][0] for part in parts])[:steps] for name in parts[0]}
    bounds = ControlPolicy.load(_snapshots(folder)[0].folder).bounds
    actions = columns["actions"] if isinstance(bounds, DiscreteActions) else bounds.outward(columns["actions"])
    over = columns["goes_on"] == 0
    return Transitions(
        columns["states"], actions, columns["rewards"], columns["next_states"], over, columns["ends"] & ~over
    )


def joined(logs: Sequence[Transitions]) -> Transitions:
    """Logs one behind the other; where one was cut in an episode, that episode is truncated."""
    columns: dict[str, Any] = {}
    for name in _COLUMNS:
        columns[name] = np.concatenate([getattr(log, name) for log in logs])
    seams = np.cumsum([len(log) for log in logs]) - 1
    columns["truncations"][seams] |= ~columns["terminations"][seams]
    return Transitions(**columns)


def _rolled(name: str, made: Behaviours | None, environment: str, count: int, seed: int) -> Transitions:
    """`count` transitions of one policy, episode after episode; the last one is cut where need be."""
    lanes = Lanes(environment, [derive_seed(seed, "collect", name) % 2**31])
    policy = None
    if name != "random":
        assert made is not None
        policy = ControlPolicy.load((made.medium if name == "medium" else made.expert).folder)
    draw = torch_generator(seed, "collect", name)
    columns: dict[str, list[Any]] = {column: [] for column in _COLUMNS}
    try:
        for _ in range(count):
            seen = lanes.seen.copy()
            actions = lanes.random_actions() if policy is None else policy.act(seen, draw)
            found = lanes.step(actions)
            values = (seen, actions, found.rewards, found.seen, found.terminated, found.truncated)
            for column, value in zip(_COLUMNS, values, strict=True):
                columns[column].append(value[0])
    finally:
        lanes.close()
    arrays: dict[str, Any] = {column: np.stack(values) for column, values in columns.items()}
    return joined([Transitions(**arrays)])


_COLUMNS = ("observations", "actions", "rewards", "next_observations", "terminations", "truncations")


def _snapshots(folder: Path) -> list[Snapshot]:
    found = []
    for described in sorted((folder / "snapshots").glob("step-*.json")):
        values = read_json(described)
        found.append(Snapshot(int(values["step"]), float(values["return"]), described.with_suffix("")))
    return found


def _learner(spaces: Spaces, options: CollectOptions) -> Learner:
    shapes = Shapes(spaces.state, spaces.bounds.width)
    kind: type[Learner] = SAC
    own: type[LearnerOptions] = SACOptions
    if isinstance(spaces.bounds, DiscreteActions):
        kind, own = OnlineDQN, OnlineDQNOptions
    settings = own(hidden=options.hidden, learning_rate=options.learning_rate, gamma=options.gamma)
    nothing = Replay(shapes, 1, 1, torch.device("cpu"))
    return kind(shapes, settings, [options.seed], nothing)
