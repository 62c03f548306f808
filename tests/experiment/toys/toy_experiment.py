"""A small experiment with known numbers. Cells and preparations leave a line in calls.txt, so that tests can count.

Value of an arm at a seed: its level + 10 * seed (which pairing removes) + a hundredth of the seed.
"""

import dataclasses
import os
import random
import time
from pathlib import Path

from paperworks.core.errors import DataError
from paperworks.experiment import Arm, Claim, Experiment, Metric, Part, Published, Workspace


def note(workspace: Workspace, line: str) -> None:
    workspace.folder.mkdir(parents=True, exist_ok=True)
    with (workspace.folder.parent / "calls.txt").open("a") as file:
        file.write(line + "\n")


def calls(folder: Path) -> list[str]:
    """The lines so far, sorted."""
    path = folder / "work" / "calls.txt"
    return sorted(path.read_text().splitlines()) if path.exists() else []


def value(arm: Arm, setting: str, seed: int) -> float:
    return arm.options["level"] + (5 if setting == "hard" else 0) + 10 * seed + 0.01 * seed * arm.options["level"]


def cell(arm, setting, seed, budget, workspace):
    note(workspace, f"{arm.name} {setting} {seed}")
    time.sleep(arm.options.get("sleep", 0))
    if "raise" in arm.options and seed == 1:
        raise DataError("expected rows", file="prefs.jsonl", line=3)
    if "die" in arm.options and seed == 1:
        os._exit(9)
    if "short" in arm.options:
        return {}
    return {"score": value(arm, setting, seed), "noise": random.random(), "curve": [1.0, 2.0], "lost": float("nan")}


def batched_cell(arm, setting, seeds, budget, workspace):
    note(workspace, f"{arm.name} {setting} {','.join(map(str, seeds))}")
    return [{"score": value(arm, setting, seed)} for seed in seeds]


def prepare(seed, budget, workspace):
    note(workspace, f"prepare {seed}")
    if seed == 2:
        raise ValueError("no data\nfor this seed")
    (workspace.seed_folder(seed) / "base.txt").write_text(str(100 * seed))


def prepare_or_die(seed, budget, workspace):
    if seed == 1:
        os._exit(9)
    (workspace.seed_folder(seed) / "base.txt").write_text(str(100 * seed))


def cell_on_prepared(arm, setting, seed, budget, workspace):
    note(workspace, f"{arm.name} {setting} {seed}")
    return {"score": float((workspace.seed_folder(seed) / "base.txt").read_text())}


ARMS = (
    Arm("rdpo", "rDPO", options={"level": 2.0}),
    Arm("dpo", "DPO", role="baseline", options={"level": 1.0}),
    Arm("clean", "DPO, clean labels", role="control", options={"level": 3.0}, settings=("easy",)),
)
PART = Part(
    name="A",
    title="toy",
    arms=ARMS,
    settings=("easy", "hard"),
    seeds={"smoke": 1, "small": 5, "full": 6},
    cell=cell,
    metrics=(Metric("score", "score", unit="nats"), Metric("noise", higher_is_better=False, format=".2f")),
)
EXPERIMENT = Experiment(
    slug="toy",
    title="A toy",
    parts=(PART,),
    claims=(
        Claim("score", better="rdpo", than="dpo", where="easy"),
        Claim("score", better="dpo", than="rdpo", where="hard", text="DPO wins when it is hard", expected="not shown"),
    ),
    published=(Published("rdpo", "score", 0.7, "a large model", "Table 2", part="A", where="hard"),),
    differences="Everything is smaller.",
)


def with_part(**changes) -> Experiment:
    """The toy with its part changed, and without claims."""
    return Experiment(slug="toy", title="A toy", parts=(dataclasses.replace(PART, **changes),))


def with_option(name: str, option: object, **changes) -> Experiment:
    """The toy with an option more on its first arm."""
    arm = dataclasses.replace(ARMS[0], options={**ARMS[0].options, name: option})
    return with_part(arms=(arm, *ARMS[1:]), **changes)


SLOW = with_part(arms=tuple(dataclasses.replace(arm, options={**arm.options, "sleep": 0.04}) for arm in ARMS))
