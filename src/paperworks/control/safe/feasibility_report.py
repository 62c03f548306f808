"""Where the constraint can be kept, by a policy's own values: shares of the log, a map, and the states that are lost.

Everything here is the estimate of values learned from the log. A state is called lost where even the safest action that
was logged in states like it is expected to end in a violation.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from paperworks.control.policy import ActionBounds, ControlPolicy
from paperworks.control.report import ReportSection
from paperworks.control.safe.diffusion_actor import DiffusionActor
from paperworks.control.safe.feasibility import steps_to_violation
from paperworks.control.transitions import Transitions
from paperworks.core import plots
from paperworks.core.errors import OptionError
from paperworks.core.files import write_atomic

CHUNK = 8192  # rows
CELLS = 10  # of the map of logged states, each way
POINTS = 60  # of the map of states of two numbers, each way


@dataclass(frozen=True)
class Feasibility:
    """What a policy's values say of each row of a log. At most 0 is feasible, or allowed."""

    value: Float[ndarray, " n"]  # V_h(s), less the limit where there is one
    q: Float[ndarray, " n"]  # Q_h(s, a) of the logged action, likewise

    @property
    def feasible(self) -> float:
        """The share of logged states from which a violation can still be avoided."""
        return float((self.value <= 0).mean())

    @property
    def allowed(self) -> float:
        """The share of logged actions that keep it so."""
        return float(((self.value <= 0) & (self.q <= 0)).mean())


def feasibility_of(policy: ControlPolicy, log: Transitions, *, threshold: float = 0.0) -> Feasibility:
    """The values of the log's rows, for a diffusion policy with values of violations."""
    actor, bounds = policy.actor, policy.bounds
    assert isinstance(actor, DiffusionActor) and isinstance(bounds, ActionBounds)
    values, known = [], []
    for begin in range(0, len(log), CHUNK):
        rows = slice(begin, begin + CHUNK)
        states = _normalised(policy, log.observations[rows])
        actions = torch.from_numpy(bounds.inward(log.actions[rows]))
        values.append(actor.value(states, actor.violation).numpy() - threshold)
        known.append(actor.q(states, actions, actor.violation).numpy() - threshold)
    return Feasibility(np.concatenate(values), np.concatenate(known))


def lost_states(found: Feasibility, log: Transitions, *, cost_scale: float | None, gamma: float) -> str:
    """A CSV of the logged states of V_h > 0, worst first: where, how bad, and how far ahead the violation lies.

    `steps_ahead` is estimated from V_h, for constraints made of costs (`cost_scale`); `logged_steps` counts to the next
    violation of the state's own episode, 0 being the row itself, and is empty where the episode has none ahead.
    """
    rows = np.flatnonzero(found.value > 0)
    rows = rows[np.argsort(-found.value[rows], kind="stable")]
    ahead = _estimated_steps(found.value[rows], cost_scale, gamma)
    episode, step, logged = _places(log)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = [f"observation_{number}" for number in range(log.observations.shape[1])]
    writer.writerow(["row", "episode", "step", "v_h", "q_h", "steps_ahead", "logged_steps", *columns])
    for row, steps in zip(rows, ahead, strict=True):
        known = "" if logged[row] < 0 else int(logged[row])
        numbers = [f"{number:.6g}" for number in (found.value[row], found.q[row])]
        seen = [f"{number:.6g}" for number in log.observations[row]]
        writer.writerow([int(row), int(episode[row]), int(step[row]), *numbers, steps, known, *seen])
    return out.getvalue()


def _estimated_steps(values: Float[ndarray, " n"], cost_scale: float | None, gamma: float) -> list[str]:
    if cost_scale is None or gamma >= 1:
        return [""] * len(values)
    return [f"{steps:.1f}" for steps in steps_to_violation(torch.from_numpy(values), cost_scale, gamma).tolist()]


def _places(log: Transitions) -> tuple[ndarray, ndarray, ndarray]:
    """Of each row its episode, its step there, and the steps to the episode's next violation (-1: none)."""
    episode, step, ahead = (np.full(len(log), -1) for _ in range(3))
    broken = _violations(log)
    for number, rows in enumerate(log.episodes()):
        episode[rows], step[rows] = number, np.arange(rows.stop - rows.start)
        following = -1
        for row in reversed(range(rows.start, rows.stop)):
            following = 0 if broken[row] else following + 1 if following >= 0 else -1
            ahead[row] = following
    return episode, step, ahead


def _violations(log: Transitions) -> ndarray:
    signed = log.constraint if log.constraint is not None else log.costs
    return np.zeros(len(log), dtype=bool) if signed is None else signed > 0


def feasibility_map(
    policy: ControlPolicy, log: Transitions, found: Feasibility, dims: Sequence[int], *, threshold: float = 0.0
) -> tuple[str, str]:
    """A figure and its caption: V_h over a state of two numbers, else the feasible share of logged states over two of them.

    Raises OptionError for dimensions that the state has not.
    """
    check_map_dims(dims, log.observations.shape[1])
    if log.observations.shape[1] == 2:
        return _map_of_values(policy, log, dims, threshold)
    return _map_of_shares(log, found, dims)


def check_map_dims(dims: Sequence[int], width: int) -> None:
    """Raises OptionError unless they are two different numbers of a state of that width."""
    if len(dims) != 2 or dims[0] == dims[1] or not all(0 <= dim < width for dim in dims):
        raise OptionError(f"--map-dims {','.join(map(str, dims))}: expected two different ones of 0 to {width - 1}")


def _map_of_values(policy: ControlPolicy, log: Transitions, dims: Sequence[int], threshold: float) -> tuple[str, str]:
    assert isinstance(policy.actor, DiffusionActor)
    x, y = (np.linspace(log.observations[:, dim].min(), log.observations[:, dim].max(), POINTS) for dim in dims)
    states = np.zeros((POINTS * POINTS, 2), np.float32)
    states[:, dims[0]], states[:, dims[1]] = np.tile(x, POINTS), np.repeat(y, POINTS)
    values = policy.actor.value(_normalised(policy, states), policy.actor.violation).numpy() - threshold
    svg = plots.field(
        x.tolist(), y.tolist(), values.reshape(POINTS, POINTS).tolist(),
        f"observation {dims[0]}", f"observation {dims[1]}",
    )  # fmt: skip
    return svg, "V_h: a violation can be avoided where it is at most 0 (blue); the line is the border"


def _map_of_shares(log: Transitions, found: Feasibility, dims: Sequence[int]) -> tuple[str, str]:
    edges, places = [], []
    for dim in dims:
        numbers = log.observations[:, dim]
        low, high = (float(number) for number in np.quantile(numbers, (0.005, 0.995)))
        edges.append(np.linspace(low, high if high > low else low + 1, CELLS + 1))
        places.append(np.digitize(numbers, edges[-1][1:-1]))
    count, feasible = (np.zeros((CELLS, CELLS)) for _ in range(2))
    np.add.at(count, (places[1], places[0]), 1)
    np.add.at(feasible, (places[1], places[0]), found.value <= 0)
    shares = np.where(count > 0, feasible / count.clip(min=1), np.nan)[::-1]
    names = [[f"{middle:.3g}" for middle in (each[:-1] + each[1:]) / 2] for each in edges]
    svg = plots.heatmap(
        names[1][::-1], names[0], shares.tolist(),
        row_title=f"observation {dims[1]}", column_title=f"observation {dims[0]}",
    )  # fmt: skip
    return svg, "share of the logged states in each cell from which a violation can still be avoided"


def feasibility_sections(
    policies: Sequence[ControlPolicy],
    log: Transitions,
    folder: Path,
    *,
    map_dims: Sequence[int],
    threshold: float,
    cost_scale: float | None,
    gamma: float,
) -> list[ReportSection]:
    """A section a policy; its lost states are in `folder/lost-states.csv`, with a number where there are several policies."""
    sections = []
    for number, policy in enumerate(policies, 1):
        found = feasibility_of(policy, log, threshold=threshold)
        file = "lost-states.csv" if len(policies) == 1 else f"lost-states-{number}.csv"
        write_atomic(folder / file, lost_states(found, log, cost_scale=cost_scale, gamma=gamma))
        lost = int((found.value > 0).sum())
        facts = {
            "logged states that can be kept safe": f"{found.feasible:.1%}",
            "logged actions that keep them so": f"{found.allowed:.1%}",
            "logged states that are lost": f"{lost} of {len(log)}",
            "logged violations": f"{_violations(log).mean():.1%}",
        }
        dims = map_dims or ((0, 1) if log.observations.shape[1] == 2 else ())
        figures = [feasibility_map(policy, log, found, dims, threshold=threshold)] if dims else []
        text = (
            "By this policy's own values of violations, learned from the log: an estimate, no guarantee. Lost are states "
            "where even the safest action logged in states like them is expected to end in a violation; "
            f"`{file}` lists them, the worst first"
            + ("." if dims else ". `--map-dims 0,1` draws a map over two numbers of the state.")
        )
        of = "" if len(policies) == 1 else f", policy {number}"
        sections.append(ReportSection(f"Where the constraint can be kept{of}", text, facts, figures))
    return sections


def _normalised(policy: ControlPolicy, observations: Float[ndarray, "n state"]) -> torch.Tensor:
    return torch.from_numpy((observations - policy.normaliser.mean) / policy.normaliser.deviation)
