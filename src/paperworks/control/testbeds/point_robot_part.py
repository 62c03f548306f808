"""The cells of FISOR's experiment: a log a seed, values that arms share, an arm's policy, and what it is judged by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from paperworks.control.testbeds import point_robot_trial as trial
from paperworks.control.testbeds.point_robot_trial import Logs, Size
from paperworks.experiment.definition import Arm, Budget, Workspace

SIZES: Mapping[Budget, Size] = {
    "smoke": Size(600, value_updates=4, policy_updates=4, starts=3, width=16),
    "small": Size(),
    "full": Size(100_000, value_updates=100_000, policy_updates=100_000, batch=512, starts=200, width=256),
}
EVERY = 2  # of the map's points, along each side, are kept for the figure


def prepare_log(seed: int, budget: Budget, workspace: Workspace) -> None:
    """Once a seed: its log, and the starts that all arms are judged from."""
    torch.set_num_threads(1)
    folder, size = workspace.seed_folder(seed), SIZES[budget]
    trial.save_log(trial.make_log(seed, size.transitions), folder / "log.npz")
    np.save(folder / "starts.npy", trial.starts(seed, size.starts).numpy())


def robot_cell(
    arm: Arm, setting: str, seeds: Sequence[int], budget: Budget, workspace: Workspace
) -> list[dict[str, Any]]:
    """Learn the arm's policy of every seed side by side; roll it out from feasible and from infeasible starts."""
    torch.set_num_threads(1)
    size = SIZES[budget]
    logs = Logs.of(seeds, [trial.load_log(workspace.seed_folder(seed) / "log.npz") for seed in seeds])
    latent = torch.stack([torch.from_numpy(np.load(workspace.seed_folder(seed) / "starts.npy")) for seed in seeds])
    regions: list[dict[str, Any]] = [dict(NO_REGION) for _ in seeds]
    if "policy" in arm.options:
        learner = trial.fisor(logs, size, **arm.options["learner"])
        trial.with_values(learner, logs, size, workspace.folder)
        trial.with_policy(learner, logs, size, workspace.folder, arm.options["policy"])
        act = trial.acting(learner, logs, latent.shape[1])
        if arm.options["policy"] in ("fisor", "summed"):
            regions = _regions(learner, logs)
    else:
        bounded = trial.iql_lagrangian(logs, size, **arm.options["learner"])

        def act(states: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
            return bounded.act(logs.normalised(states))

    rolled = trial.roll_alive(act, latent)
    return [{**trial.outcomes(rolled, place), **regions[place]} for place in range(len(seeds))]


NO_REGION = {name: float("nan") for name in ("iou", "false_safe", "false_unsafe")}


def _regions(learner: trial.SharedValues, logs: Logs) -> list[dict[str, Any]]:
    truth, found = trial.true_region(), []
    for seed, values in zip(logs.seeds, trial.map_values(learner, logs, learner.violation), strict=True):
        known: dict[str, Any] = trial.region(values <= learner.threshold, truth)
        if seed == 0:
            side = (values - learner.threshold).view(trial.GRID, trial.GRID)[::EVERY, ::EVERY]
            known["map"] = [round(value, 3) for value in side.flatten().tolist()]
        found.append(known)
    return found
