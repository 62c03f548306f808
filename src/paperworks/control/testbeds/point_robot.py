"""The point robot of FISOR's repository (arXiv 2401.10700): drive to a goal past two round hazards, with inertia.

State (x, y, v, theta), controls (dv/dt, dtheta/dt) in [-1, 1], time steps of 0.05 s. The constraint is h = 0.8 - distance to
the nearest hazard's centre, above 0 inside; the cost counts time steps that end inside. An episode is over at the goal and
outside the arena. Whether a violation can still be avoided is known by trying manoeuvres (`avoidable`).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

HAZARDS = ((0.4, -1.2), (-0.4, 1.2))
HAZARD_RADIUS = 0.8
GOAL, GOAL_RADIUS = (2.2, 2.2), 0.3
ARENA = 3.0
TIME_STEP = 0.05
STARTS = ((-ARENA, ARENA), (-ARENA, ARENA), (0.5, 2.0), (math.pi / 4, 3 * math.pi / 4))  # uniform: x, y, v, theta
STILL = 1e-6


@dataclass(frozen=True)
class PointRobot:
    """The world: latents (x, y, v, theta); policies see x, y, v, cos theta, sin theta and where each hazard lies.

    A control is held for `hold` time steps (the paper's robot: one).
    """

    hold: int = 1
    state: int = 5 + 3 * len(HAZARDS)
    action: int = 2

    @property
    def limit(self) -> int:
        """300 time steps."""
        return 300 // self.hold

    def start(self, shape: tuple[int, ...], draw: torch.Generator) -> Float[Tensor, "*shape latent"]:
        low, high = torch.tensor(STARTS).T
        return low + (high - low) * torch.rand(*shape, len(STARTS), generator=draw)

    def seen(self, latent: Float[Tensor, "*shape latent"]) -> Float[Tensor, "*shape state"]:
        """x, y, v, cos theta, sin theta; of each hazard its distance, and the cosine and sine of its bearing."""
        x, y, v, theta = latent.unbind(-1)
        parts = [x, y, v, theta.cos(), theta.sin()]
        for hazard_x, hazard_y in HAZARDS:
            bearing = torch.atan2(hazard_y - y, hazard_x - x) - theta
            parts += [torch.hypot(hazard_x - x, hazard_y - y), bearing.cos(), bearing.sin()]
        return torch.stack(parts, -1)

    def step(
        self, latent: Float[Tensor, "*shape latent"], action: Float[Tensor, "*shape action"]
    ) -> tuple[
        Float[Tensor, "*shape latent"], Float[Tensor, "*shape"], Bool[Tensor, "*shape"], Float[Tensor, "*shape"]
    ]:
        """Reward: how much nearer the goal is, and 1 at it. What is over stands still."""
        before = goal_distance(latent)
        over, cost = torch.zeros_like(before, dtype=torch.bool), torch.zeros_like(before)
        for _ in range(self.hold):
            latent = torch.where(over[..., None], latent, moved(latent, action))
            cost = cost + ((constraint(latent) > 0) & ~over)
            over = over | _is_over(latent)
        after = goal_distance(latent)
        return latent, before - after + (after <= GOAL_RADIUS), over, cost

    def worst(
        self, latent: Float[Tensor, "*shape latent"], action: Float[Tensor, "*shape action"]
    ) -> Float[Tensor, "*shape"]:
        """The largest constraint of a state and of those on the way to the next one, which is not among them."""
        found = constraint(latent)
        for _ in range(self.hold - 1):
            latent = moved(latent, action)
            found = torch.maximum(found, constraint(latent))
        return found


def latent_of(states: Float[Tensor, "*shape state"]) -> Float[Tensor, "*shape latent"]:
    """(x, y, v, theta) of what policies see."""
    return torch.cat([states[..., :3], torch.atan2(states[..., 4], states[..., 3])[..., None]], -1)


def _is_over(latent: Float[Tensor, "*shape latent"]) -> Bool[Tensor, "*shape"]:
    return (goal_distance(latent) <= GOAL_RADIUS) | (latent[..., :2].abs() > ARENA).any(-1)


def moved(latent: Float[Tensor, "*shape latent"], action: Float[Tensor, "*shape action"]) -> Tensor:
    """The state a time step later."""
    v, theta = latent[..., 2], latent[..., 3]
    controls = action.clamp(-1, 1)
    speed = torch.stack([v * theta.cos(), v * theta.sin(), controls[..., 0], controls[..., 1]], -1)
    return latent + TIME_STEP * speed


def constraint(latent: Float[Tensor, "*shape xy_more"]) -> Float[Tensor, "*shape"]:
    """h of states, or of anything that begins with x and y (what policies see does): above 0 is a violation."""
    distances = [torch.hypot(latent[..., 0] - x, latent[..., 1] - y) for x, y in HAZARDS]
    return HAZARD_RADIUS - torch.stack(distances).amin(0)


def goal_distance(latent: Float[Tensor, "*shape xy_more"]) -> Float[Tensor, "*shape"]:
    """To the goal's centre."""
    return torch.hypot(latent[..., 0] - GOAL[0], latent[..., 1] - GOAL[1])


# ------------------------------------------------------------------------------------------------------------- the truth

_SECONDS = (0.0, 0.25, 0.5, 1.0, 2.0)  # of a manoeuvre's first control


def avoidable(latent: Float[Tensor, "rows latent"], world: PointRobot = PointRobot()) -> Bool[Tensor, " rows"]:
    """Whether some manoeuvre avoids every violation from here, this state's own included, to the end of the episode.

    A manoeuvre holds a control for some time, then another; one that brakes stays where it stops. Controls are the nine
    of {-1, 0, 1}^2. A state that only finer steering could save counts as lost.
    """
    safe = torch.zeros(len(latent), dtype=torch.bool)
    controls = list(itertools.product((-1.0, 0.0, 1.0), repeat=2))
    for steps in sorted({round(seconds / TIME_STEP / world.hold) for seconds in _SECONDS}):
        for first, then in itertools.product(controls if steps else controls[:1], controls):
            open_rows = torch.nonzero(~safe).squeeze(-1)
            if len(open_rows):
                safe[open_rows] = _survives(world, latent[open_rows], first, then, steps)
    return safe


def _survives(
    world: PointRobot,
    latent: Float[Tensor, "rows latent"],
    first: tuple[float, ...],
    then: tuple[float, ...],
    steps: int,
) -> Bool[Tensor, " rows"]:
    """Whether `first` for so many steps, then the other control, does."""
    safe, rows = torch.zeros(len(latent), dtype=torch.bool), torch.arange(len(latent))
    kept = constraint(latent) <= 0
    latent, rows = latent[kept], rows[kept]
    for step in range(world.limit):
        if not len(rows):
            break
        brakes = step >= steps and then[0] < 0
        control = torch.tensor(first if step < steps else then).expand(len(latent), -1)
        if brakes:  # no further than to a stop
            stop = (-latent[:, 2] / (TIME_STEP * world.hold)).clamp(-1, 1)
            control = torch.stack([stop, control[:, 1]], -1)
        latent, _, over, cost = world.step(latent, control)
        stands = (latent[:, 2].abs() < STILL) & torch.tensor(brakes)
        safe[rows[(over | stands) & (cost == 0)]] = True
        going = ~(over | stands) & (cost == 0)
        latent, rows = latent[going], rows[going]
    safe[rows] = True
    return safe


# -------------------------------------------------------------------------------------------------------- who made the log


def steering(states: Float[Tensor, "*shape state"]) -> Float[Tensor, "*shape action"]:
    """A driver of what policies see: heads for the goal, turns away from hazards on its course, and slows down near them."""
    x, y, v, theta = latent_of(states).unbind(-1)
    to_x, to_y = GOAL[0] - x, GOAL[1] - y
    length = torch.hypot(to_x, to_y).clamp(min=STILL)
    pull_x, pull_y = to_x / length, to_y / length
    danger = torch.zeros_like(x)
    for hazard_x, hazard_y in HAZARDS:
        off_x, off_y = x - hazard_x, y - hazard_y
        distance = torch.hypot(off_x, off_y).clamp(min=STILL)
        near = ((1.8 - distance) / 1.0).clamp(0, 1)
        side = torch.sign(off_y * pull_x - off_x * pull_y)  # pass it on the side where the robot is
        pull_x = pull_x + near * (1.5 * off_x / distance - 0.8 * side * pull_y)
        pull_y = pull_y + near * (1.5 * off_y / distance + 0.8 * side * pull_x)
        danger = torch.maximum(danger, near)
    error = torch.remainder(torch.atan2(pull_y, pull_x) - theta + math.pi, 2 * math.pi) - math.pi
    wanted = 2.0 * (1 - 0.7 * danger) * error.cos().clamp(min=0.2)
    return torch.stack([2 * (wanted - v), 3 * error], -1).clamp(-1, 1)
