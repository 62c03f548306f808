"""A paper whose numbers are known: at each seed `good` is 1 above `bad`. Cells and preparations leave a line each.

TOY_SLEEP (seconds) slows its cells down. TOY_FAIL and TOY_INTERRUPT name the cells ("good easy 1", or "*") that raise
an error or are stopped by Ctrl-C.
"""

import os
import time

from paperworks.core.errors import DataError
from paperworks.experiment import Arm, Claim, Experiment, Metric, Part

LEVELS = {"good": 1.0, "bad": 0.0, "bound": 2.0}


def note(workspace, line):
    with (workspace.folder.parents[1] / "calls.txt").open("a") as file:
        file.write(line + "\n")


def prepare(seed, budget, workspace):
    note(workspace, f"prepare {seed}")
    (workspace.seed_folder(seed) / "start.txt").write_text(str(10 * seed))


def cell(arm, setting, seed, budget, workspace):
    name = f"{arm.name} {setting} {seed}"
    note(workspace, name)
    time.sleep(float(os.environ.get("TOY_SLEEP", "0")))
    if os.environ.get("TOY_FAIL") in (name, "*"):
        raise DataError("expected rows", file="prefs.jsonl", line=3)
    if os.environ.get("TOY_INTERRUPT") == name:
        raise KeyboardInterrupt
    return {"score": float((workspace.seed_folder(seed) / "start.txt").read_text()) + LEVELS[arm.name]}


EXPERIMENT = Experiment(
    slug="toy-paper",
    title="A toy paper",
    parts=(
        Part(
            name="A",
            title="toy",
            arms=(Arm("good"), Arm("bad", role="baseline"), Arm("bound", role="control")),
            settings=("easy", "hard"),
            seeds={"smoke": 2, "small": 5, "full": 6},
            cell=cell,
            prepare=prepare,
            metrics=(Metric("score"),),
        ),
    ),
    claims=(
        Claim("score", better="good", than="bad", where="easy"),
        Claim("score", better="bad", than="good", where="hard", expected="reversed"),
    ),
)
