"""What training runs of control policies share: numbers shown and written down, a folder gone on with, policies left there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paperworks.control.environments import Spaces
from paperworks.control.policy import ControlPolicy
from paperworks.control.transitions import Transitions
from paperworks.core.errors import DataError, RunError
from paperworks.core.runs import Run


class Told:
    """Shows and logs the numbers of a run: means over seeds. A run that goes on first drops what it will say again."""

    def __init__(self, run: Run, bar: Any, total: int, names: Sequence[str] = ()) -> None:
        """`names` are those shown beside the last return."""
        self._run, self._bar, self._total, self._names = run, bar, total, names
        self._last, self._cut = "", False

    def __call__(self, done: int, values: Mapping[str, Sequence[float]]) -> None:
        if not self._cut:
            self._run.truncate_metrics(done - 1)
            self._cut = True
        means = {name: sum(of_seeds) / len(of_seeds) for name, of_seeds in values.items()}
        self._run.log(step=done, **means)
        if "return" in means:
            self._last = f"return {means['return']:.4g}"
        told = [f"{name} {means[name]:.3g}" for name in self._names if name in means]
        self._bar.update(done, ", ".join([each for each in (self._last, *told) if each]))
        if done == self._total and ("return" in means or not self._last):
            self._bar.finish()


def check_width(log: Transitions, spaces: Spaces) -> None:
    """Raises DataError where a log is of another environment."""
    if log.observations.shape[1] != spaces.state:
        raise DataError(
            f"observations of {log.observations.shape[1]} numbers; {spaces.environment} shows {spaces.state}",
            file=log.source or None,
            field="observations",
        )


def check_is_run(folder: Path) -> None:
    """Raises RunError where there is no run to go on with."""
    if not (folder / "run.yaml").is_file():
        raise RunError(f"{folder}: no run to go on with (run.yaml is missing)")


def check_same(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """Raises RunError where a folder's run was started with other values; the device may be another."""
    for name, value in now.items():
        if value != before[name] and name != "device":
            raise RunError(
                f"{folder}: was started with {name}={before[name]!r}, not {value!r}; give the same, or --overwrite"
            )


def save_policies(policies: Sequence[ControlPolicy], first_seed: int, folder: Path) -> None:
    """Write the policies of consecutive seeds into a run's folder: `policy`, or `policy-SEED` where there are several."""
    for number, policy in enumerate(policies):
        policy.save(folder / ("policy" if len(policies) == 1 else f"policy-{first_seed + number}"))
