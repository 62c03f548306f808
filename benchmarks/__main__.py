"""`make bench`: every benchmark, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

NAMES = (
    "start_up",
    "page_speed",
    "sampling_speed",
    "training_speed",
    "unlearning_step_speed",
    "unlearning_evaluation_speed",
    "ladder_speed",
    "online_speed",
    "reward_ensemble_speed",
    "multi_objective_speed",
    "hnpg_speed",
    "control_speed",
)


def main() -> int:
    codes = []
    for name in NAMES:
        print(f"# {name}", flush=True)
        codes.append(subprocess.run([sys.executable, str(Path(__file__).with_name(f"{name}.py"))]).returncode)
    return max(codes)


if __name__ == "__main__":
    raise SystemExit(main())
