"""The cells of a comparison as matrices of seeds and prompts: what is known of every arm, paired across arms.

Reads what `comparison` and its cells wrote into a run folder; computes means, differences and win rates. Says nothing about
what they mean.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from paperworks.core.errors import RunError
from paperworks.core.files import read_json
from paperworks.core.options import build
from paperworks.core.statistics import Interval
from paperworks.language.comparison import statistics
from paperworks.language.comparison.grid import START, Point
from paperworks.language.comparison.statistics import Matrix

PLAN = "comparison.json"
Half = Literal["choose", "report"]


@dataclass(frozen=True)
class Plan:
    """What was set out to compare, written before the first cell: what a report needs besides the cells."""

    job: Mapping[str, Any]  # CompareJob.config()
    points: tuple[Mapping[str, Any], ...]  # Point's fields
    seeds: int
    rewards: tuple[str, ...]
    samples: int
    fingerprints: Mapping[str, str]
    rows: Mapping[str, Any]  # counts and facts on the data
    row_prompts: tuple[int, ...]  # for every held-out row a number that rows of one prompt share
    choosing_rows: tuple[bool, ...]  # held-out rows that swept options are chosen on; all False where nothing is swept
    choosing_prompts: tuple[bool, ...]
    shown: Mapping[str, Any]  # prompts whose answers are kept: index -> prompt
    steps: int
    notes: tuple[str, ...]  # remarks on the plan: what is equal, what is not

    @property
    def all_points(self) -> tuple[Point, ...]:
        return tuple(Point(p["objective"], p["options"], tuple(p["swept"])) for p in self.points)

    @property
    def objectives(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(point.objective for point in self.all_points))

    @property
    def has_choice(self) -> bool:
        """Whether an objective has several points, of which one is chosen."""
        return any(self.choosing_prompts)

    @property
    def criterion(self) -> str:
        """The metric that decides: the first reward, else accuracy on held-out pairs."""
        return "reward" if self.rewards else "accuracy"


def read_plan(folder: Path) -> Plan:
    """Raises RunError where the folder holds no comparison."""
    try:
        return build(Plan, read_json(folder / PLAN))
    except (TypeError, AttributeError) as error:
        raise RunError(f"{folder / PLAN}: not the plan of a comparison ({error})") from None


def read_cells(folder: Path, plan: Plan) -> dict[tuple[str, int], Mapping[str, Any]]:
    """The finished cells of the plan by (arm, seed); those of rows or code files that have changed since are left out."""
    arms = {START, *(point.name for point in plan.all_points)}
    found = {}
    for file in sorted(folder.glob("cells/*/*/*/*.json")):
        try:
            content = read_json(file)
            arm, seed, metrics = content["arm"], int(content["seed"]), content["metrics"]
        except (RunError, KeyError, TypeError, ValueError):
            continue  # the runner computes a damaged cell again
        if arm in arms and seed < plan.seeds and metrics.get("fingerprints") == dict(plan.fingerprints):
            found[arm, seed] = metrics
    return found


class Measures:
    """Figures of arms over their finished seeds. Arms and pairs of arms without a common seed give NaN intervals."""

    def __init__(self, plan: Plan, cells: Mapping[tuple[str, int], Mapping[str, Any]]) -> None:
        self.plan = plan
        self.cells = {place: cell for place, cell in cells.items() if not cell["diverged"]}
        self.diverged = {place: str(cell["diverged"]) for place, cell in cells.items() if cell["diverged"]}
        kept: Sequence[int] = next((cell["kept_rows"] for cell in self.cells.values()), [])
        self._kept = np.array(kept, dtype=int)

    def seeds(self, *arms: str) -> list[int]:
        """The seeds that all these arms have finished."""
        return [seed for seed in range(self.plan.seeds) if all((arm, seed) in self.cells for arm in arms)]

    def interval(self, arm: str, metric: str, half: Half = "report") -> Interval:
        """Mean and 95% interval of an arm."""
        return self._interval(lambda seeds: self._by_prompt(arm, metric, half, seeds)[0], metric, half, self.seeds(arm))

    def difference(self, arm: str, than: str, metric: str, half: Half = "report") -> Interval:
        """arm - than, paired by seed and prompt. Own accuracy and margin of the start are by the arm's objective."""

        def values(seeds: Sequence[int]) -> Matrix:
            first, _ = self._by_prompt(arm, metric, half, seeds)
            if than == START and metric in ("accuracy", "margin"):
                return first - self._by_prompt(arm, f"{metric}_at_start", half, seeds)[0]
            return first - self._by_prompt(than, metric, half, seeds)[0]

        return self._interval(values, metric, half, self.seeds(arm, than))

    def win_rate(self, arm: str, other: str) -> Interval:
        """The chance that a response of `arm` has a higher first reward than one of `other` to the same prompt."""

        def values(seeds: Sequence[int]) -> Matrix:
            first, second = (self._samples(each, "reward", "report", seeds) for each in (arm, other))
            return statistics.wins(first, second)

        return self._interval(values, "reward", "report", self.seeds(arm, other))

    def by_seed(self, arm: str, metric: str, half: Half = "report") -> list[float]:
        """The mean of each finished seed."""
        seeds = self.seeds(arm)
        if not seeds:
            return []
        values, sizes = self._by_prompt(arm, metric, half, seeds)
        return list(map(float, (values @ sizes) / sizes.sum()))

    def lengths(self, arm: str) -> list[float]:
        """Tokens of every response on the reported half."""
        return list(map(float, self._samples(arm, "tokens", "report", self.seeds(arm)).ravel()))

    def mean_seconds(self, arm: str) -> float:
        """Training seconds a seed; NaN where none finished."""
        return self.mean_of_cells(arm, "train_seconds")

    def mean_of_cells(self, arm: str, name: str) -> float:
        """The mean over seeds of a number that cells hold; NaN where none finished, 0 where it is not there."""
        found = [float(self.cells[arm, seed].get(name, 0.0)) for seed in self.seeds(arm)]
        return float(np.mean(found)) if found else float("nan")

    def trajectory(self, arm: str) -> list[Mapping[str, float]]:
        """Means over seeds, iteration by iteration, of what an online method's own answers were like in training."""
        cells = [self.cells[arm, seed].get("trajectory", []) for seed in self.seeds(arm)]
        steps = min(map(len, cells), default=0)
        return [
            {name: float(np.mean([cell[step][name] for cell in cells])) for name in cells[0][step]}
            for step in range(steps)
        ]

    def prompts(self) -> int:
        """Prompts on the reported half."""
        return int(self._columns("report").sum())

    @functools.cached_property
    def slope(self) -> float:
        """First reward a token, within arms."""
        arms = [START, *(point.name for point in self.plan.all_points)]
        pairs = [
            (
                self._samples(arm, "reward", "report", self.seeds(arm)),
                self._samples(arm, "tokens", "report", self.seeds(arm)),
            )
            for arm in arms
            if self.seeds(arm)
        ]
        return statistics.slope_on_length(pairs)

    @functools.cached_property
    def start_length(self) -> float:
        """Mean tokens of the start's responses; NaN where it has no finished cell."""
        return self.interval(START, "tokens").mean

    def _interval(
        self, values: Callable[[Sequence[int]], Matrix], metric: str, half: Half, seeds: list[int]
    ) -> Interval:
        if not seeds:
            return Interval(float("nan"), float("nan"), float("nan"), 0)
        sizes = None if _of_samples(metric) else self._groups(half)[1]
        return statistics.crossed_interval(values(seeds), sizes)

    def _by_prompt(self, arm: str, metric: str, half: Half, seeds: Sequence[int]) -> tuple[Matrix, NDArray[np.float64]]:
        """The metric by seed and prompt, and how many values a prompt's has."""
        if _of_samples(metric):
            values = self._samples(arm, metric, half, seeds).mean(axis=2)
            return values, np.ones(values.shape[1])
        places, sizes = self._groups(half)
        rows = np.array([self._rows(self.cells[arm, seed], metric) for seed in seeds])
        sums = np.stack([rows[:, chosen].sum(axis=1) for chosen in places], axis=1)
        return sums / sizes, sizes

    def _samples(self, arm: str, metric: str, half: Half, seeds: Sequence[int]) -> NDArray[np.float64]:
        """[seeds, prompts, samples]"""
        if metric == "length_controlled":
            rewards, tokens = (self._samples(arm, name, half, seeds) for name in ("reward", "tokens"))
            return rewards - self.slope * (tokens - self.start_length)
        drawn = [self._sampled(self.cells[arm, seed], metric) for seed in seeds]
        values = np.array(drawn, dtype=float).reshape(len(seeds), -1, self.plan.samples)
        return values[:, self._columns(half)]

    def _sampled(self, cell: Mapping[str, Any], metric: str) -> Sequence[float]:
        if metric == "reward" or metric.startswith("reward "):
            return cell["rewards"][self.plan.rewards[0] if metric == "reward" else metric.removeprefix("reward ")]
        if metric == "at_cap":
            return [float(not finished) for finished in cell["finished"]]
        return cell["log_ratio" if metric == "kl" else metric]

    def _rows(self, cell: Mapping[str, Any], metric: str) -> NDArray[np.float64]:
        name = metric.replace("accuracy", "margin") if metric in ("accuracy", "accuracy_at_start") else metric
        if name not in cell:  # the start has no objective of its own
            return np.full(len(self._kept), np.nan)
        values = np.asarray(cell[name], dtype=float)
        return (np.sign(values) + 1) / 2 if name != metric else values

    def _columns(self, half: Half) -> NDArray[np.bool_]:
        return np.array(self.plan.choosing_prompts, dtype=bool) == (half == "choose")

    @functools.lru_cache(maxsize=2)  # noqa: B019 - one object a report
    def _groups(self, half: Half) -> tuple[list[NDArray[np.intp]], NDArray[np.float64]]:
        """For every prompt of the half the places of its rows among those kept, and their number."""
        prompts = np.array(self.plan.row_prompts)[self._kept]
        on_side = np.array(self.plan.choosing_rows, dtype=bool)[self._kept] == (half == "choose")
        places = [np.flatnonzero((prompts == prompt) & on_side) for prompt in dict.fromkeys(prompts[on_side].tolist())]
        return places, np.array([len(place) for place in places], dtype=float)


def plan_values(plan: Plan) -> dict[str, Any]:
    """The plan as JSON values."""
    return {field.name: getattr(plan, field.name) for field in dataclasses.fields(plan)}


def sample_metrics(rewards: Iterable[str]) -> list[str]:
    """The metrics of drawn responses, in the order of reports."""
    more = [f"reward {name}" for name in list(rewards)[1:]]
    return [*(["reward", *more, "length_controlled"] if rewards else []), "kl", "tokens", "at_cap"]


ROW_METRICS = ("accuracy", "accuracy_at_start", "margin", "accuracy_log_ratio", "accuracy_token_log_ratio",
               "accuracy_token_logp", "logp_chosen")  # fmt: skip


def _of_samples(metric: str) -> bool:
    return metric in ("kl", "tokens", "at_cap", "length_controlled", "log_ratio") or metric.startswith("reward")
