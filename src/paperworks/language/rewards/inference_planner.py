"""Which reward transform to train with for best-of-n or worst-of-n, and what it will win: computed, without training.

With u the calibrated reward, uniform under the reference, a policy is a density p(u) on [0, 1], F its distribution
function. Win rates against the reference, the procedure applied to both (arXiv 2412.19792, derived again here):

    one sample   E_p[u]
    best of n    1 - n integral of F^n u^(n-1) du
    worst of n   n integral of (1-F)^n (1-u)^(n-1) du

At a KL budget the optimum is p = exp(G(u)/beta) / Z with G depending on F itself:

    best of n    G(u) = -n^2 integral from u to 1 of F^(n-1) v^(n-1) dv
    worst of n   G(u) = -n^2 integral from u to 1 of (1-F)^(n-1) (1-v)^(n-1) dv

The fixed point is found by damped iteration on log p; undamped or half-damped iteration ends in a 2-cycle with
plausible-looking win rates. For worst of n the condition is necessary only: there the win rate is convex in F.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from paperworks.core.errors import OptionError, PaperworksError
from paperworks.language.rewards.best_of import Kind
from paperworks.language.rewards.calibration import Transform

GRID = 4000
DAMPING = 0.15
RESIDUAL = 1e-9
_MOST_ITERATIONS = 3000
Numbers = NDArray[np.float64]
Tilt = Callable[[float], "QuantilePolicy"]


@dataclass(frozen=True, eq=False)
class QuantilePolicy:
    """A policy as the density of its calibrated reward on a grid of midpoints of [0, 1]."""

    density: Numbers  # [grid], mean 1

    @classmethod
    def from_logits(cls, logits: Numbers) -> QuantilePolicy:
        """Density proportional to exp(logits)."""
        weights = np.exp(logits - logits.max())
        return cls(weights / weights.mean())

    @cached_property
    def distribution(self) -> Numbers:
        """F at the midpoints."""
        return (np.cumsum(self.density) - self.density / 2) / len(self.density)

    @property
    def kl(self) -> float:
        """KL to the reference in nats a response."""
        p = self.density[self.density > 0]
        return float((p * np.log(p)).sum() / len(self.density))

    def win_rate(self, kind: Kind = "sample", n: int = 1) -> float:
        """Against the reference under the same procedure."""
        u, below = _midpoints(len(self.density)), self.distribution
        if kind == "sample":
            return float((self.density * u).mean())
        if kind == "bon":
            return float(1 - n * (below**n * u ** (n - 1)).mean())
        return float(n * ((1 - below) ** n * (1 - u) ** (n - 1)).mean())


@dataclass(frozen=True, eq=False)
class Optimum:
    """The fixed point for a procedure at a weight of the KL; `residual` is the last change of the density."""

    policy: QuantilePolicy
    beta: float
    residual: float
    iterations: int


@dataclass(frozen=True)
class PlanRow:
    """What a transform wins at a KL budget."""

    transform: str
    beta: float  # weight of the KL for the transform normalised to [0, 1]; of the optimum for G
    kl: float
    standard: float
    best: float
    worst: float


def tilted(transform: Transform, beta: float, *, grid: int = GRID) -> QuantilePolicy:
    """The optimum of E[transform(u)] - beta KL: p proportional to exp(transform(u)/beta); for log it is u^(1/beta)."""
    _check_beta(beta)
    u = _midpoints(grid)
    values = np.log(u) if transform.name == "log" else transform(u)
    return QuantilePolicy.from_logits(values / beta)


def optimum(
    kind: Literal["bon", "won"],
    n: int,
    beta: float,
    *,
    grid: int = GRID,
    start: QuantilePolicy | None = None,
    damping: float = DAMPING,
) -> Optimum:
    """The tilt that is optimal for best or worst of n at this beta. Raises OptionError; PlannerError without convergence.

    The damping is halved where iteration does not settle.
    """
    _check_beta(beta)
    if n < 1:
        raise OptionError(f"option n={n}: expected at least 1")
    logp = np.zeros(grid) if start is None else np.log(np.maximum(start.density, 1e-300))
    residual = math.inf
    for _ in range(6):
        found, residual, iterations = _iterate(kind, n, beta, logp, damping)
        if residual < RESIDUAL:
            return Optimum(QuantilePolicy(np.exp(found)), beta, residual, iterations)
        damping /= 2
    raise PlannerError(
        f"the optimum for {kind}, n={n}, beta={beta:g} was not found (the density still changes by {residual:.1g}); "
        "ask for a smaller KL budget"
    )


class PlannerError(PaperworksError):
    """A fixed point that was not found."""


def _iterate(kind: str, n: int, beta: float, logp: Numbers, damping: float) -> tuple[Numbers, float, int]:
    u, size, p, residual, iterations = _midpoints(len(logp)), len(logp), np.exp(logp), math.inf, 0
    while residual >= RESIDUAL and iterations < _MOST_ITERATIONS:
        iterations += 1
        below = (np.cumsum(p) - p / 2) / size
        inner = (below * u) ** (n - 1) if kind == "bon" else ((1 - below) * (1 - u)) ** (n - 1)
        from_here = (np.cumsum(inner[::-1])[::-1] - inner / 2) / size
        logits = -(n**2) * from_here / beta
        logits -= logits.max()
        target = logits - math.log(np.exp(logits).mean())
        logp = logp + damping * (target - logp)
        new = np.exp(logp)
        residual = float(np.abs(new - p).max())
        p = new
    return target, residual, iterations


def at_kl(make: Tilt, target: float, *, low: float = 1e-5, high: float = 1e4) -> tuple[float, QuantilePolicy]:
    """The beta, and its policy, whose KL is `target` nats, by bisection on log beta; `make` gives a policy for a beta.

    Raises OptionError for a target that is not positive, or beyond what a grid can hold.
    """
    if not target > 0:
        raise OptionError(f"KL budget {target}: expected a number of nats above 0")
    bounds = math.log(low), math.log(high)
    policy = make(high)
    for _ in range(60):
        middle = sum(bounds) / 2
        policy = make(math.exp(middle))
        if abs(policy.kl - target) < 1e-10:
            break
        bounds = (middle, bounds[1]) if policy.kl > target else (bounds[0], middle)
    if abs(policy.kl - target) > 1e-4 * target:
        raise OptionError(f"KL budget {target}: no weight of the KL reaches it on this grid (nearest {policy.kl:.3g})")
    return math.exp(sum(bounds) / 2), policy


def optimum_at_kl(
    kind: Literal["bon", "won"], n: int, target: float, *, grid: int = GRID
) -> tuple[float, QuantilePolicy]:
    """The optimal tilt for the procedure at a KL budget, each solution starting from the one before."""
    last: list[QuantilePolicy] = []

    def make(beta: float) -> QuantilePolicy:
        found = optimum(kind, n, beta, grid=grid, start=last[-1] if last else None)
        last.append(found.policy)
        return found.policy

    # For worst of n the KL grows slowly as beta falls: 8 answers and 1 nat take a beta of 0.001.
    return at_kl(make, target, low=1e-4, high=max(10.0, 4 / math.sqrt(target)))


CANDIDATES = (
    Transform("identity"),
    Transform("log"),
    Transform("exp", 5.0),
    Transform("exp", 10.0),
    Transform("exp", -5.0),
    Transform("exp", -10.0),
)


def plan(n: int, target_kl: float, *, grid: int = GRID) -> list[PlanRow]:
    """What every candidate transform, and the optima for best and worst of n, win at the KL budget.

    Raises OptionError for n below 2 or a budget out of reach.
    """
    if n < 2:
        raise OptionError(f"option n={n}: expected at least 2; with one sample the identity is optimal")
    rows = []
    for transform in CANDIDATES:
        beta, policy = at_kl(lambda b, each=transform: tilted(each, b, grid=grid), target_kl)  # type: ignore[misc]
        rows.append(_row(transform.label, beta, policy, n))
    for kind, label in (("bon", "optimum for best of n"), ("won", "optimum for worst of n")):
        beta, policy = optimum_at_kl(kind, n, target_kl, grid=grid)  # type: ignore[arg-type]
        rows.append(_row(label, beta, policy, n))
    return rows


def recommended(rows: list[PlanRow], kind: Kind) -> PlanRow:
    """The transform, of those that need no fixed point, with the highest win rate for the procedure."""
    measure = {"sample": "standard", "bon": "best", "won": "worst"}[kind]
    return max((row for row in rows if not row.transform.startswith("optimum")), key=lambda row: getattr(row, measure))


def _row(label: str, beta: float, policy: QuantilePolicy, n: int) -> PlanRow:
    return PlanRow(label, beta, policy.kl, policy.win_rate(), policy.win_rate("bon", n), policy.win_rate("won", n))


def _midpoints(grid: int) -> Numbers:
    return (np.arange(grid) + 0.5) / grid


def _check_beta(beta: float) -> None:
    if not (math.isfinite(beta) and beta > 0):
        raise OptionError(f"option beta={beta}: expected a finite number above 0")
