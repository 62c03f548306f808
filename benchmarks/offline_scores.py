"""The table of docs/control-scores.md: what algorithms earn on logs of HalfCheetah and Hopper, as D4RL's normalised scores.

    paperworks collect HalfCheetah-v5 --steps 100000 --transitions 50000 --hidden 128,128 --batch-size 128 \
        --learning-rate 1e-3 --out LOGS/HalfCheetah-v5
    python benchmarks/offline_scores.py LOGS RUNS [--logs HalfCheetah-v5/medium ...]

trains every algorithm on every log with the same number of steps (runs that are there are kept), and prints the table.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from paperworks.control.scores import reference_of
from paperworks.core.files import read_json
from paperworks.core.statistics import bootstrap_mean

SHARED = (
    "--hidden", "128,128", "--batch-size", "128", "--steps", "10000", "--seeds", "3", "--eval-every", "10000",
    "--eval-episodes", "10", "--learning-rate", "3e-4", "--quiet",
)  # fmt: skip
ALGORITHMS: dict[str, tuple[str, ...]] = {
    "BC": ("bc",),
    "10%-BC": ("bc", "--best", "0.1"),
    "TD3+BC": ("td3-bc",),
    "CQL": ("cql",),
    "IQL": ("iql",),
    "AWAC": ("awac",),
    "BCQ": ("bcq", "--vae-hidden", "128,128"),
    "PRDC": ("prdc",),
    "A2PR": ("a2pr", "--vae-hidden", "128,128", "--critic-hidden", "128,128"),
    "FamO2O": ("famo2o",),
}


def folder_of(runs: Path, log: str, name: str) -> Path:
    return runs / log / name.lower().replace("%", "").replace("+", "-")


def train(logs: Path, runs: Path, log: str, name: str) -> None:
    """Train an algorithm on a log, unless its run is there."""
    folder, environment = folder_of(runs, log, name), log.split("/")[0]
    if (folder / "results.json").is_file():
        return
    data = logs / environment / "datasets" / log.split("/")[1]
    words = [*ALGORITHMS[name], "--data", str(data), "--env", environment, *SHARED, "--out", str(folder), "--overwrite"]
    subprocess.run([sys.executable, "-m", "paperworks", "train", *words], check=True, stdout=subprocess.DEVNULL)


def cell(runs: Path, log: str, name: str) -> str:
    """The score of the last policies, mean of seeds and 95% interval."""
    reference = reference_of(log.split("/")[0])
    path = folder_of(runs, log, name) / "results.json"
    if reference is None or not path.is_file():
        return ""
    found = bootstrap_mean(reference.score(read_json(path)["evaluations"][-1][1]))
    return f"{found.mean:.1f} [{found.low:.1f}, {found.high:.1f}]"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder of collections, one an environment")
    parser.add_argument("runs", type=Path, help="where runs are, or go")
    parser.add_argument("--logs", nargs="+", default=["HalfCheetah-v5/medium", "Hopper-v5/medium"])
    parser.add_argument("--only-table", action="store_true", help="train nothing")
    args = parser.parse_args()
    for log in args.logs:
        for name in () if args.only_table else ALGORITHMS:
            train(args.data, args.runs, log, name)
    print(f"| | {' | '.join(args.logs)} |\n|{' --- |' * (1 + len(args.logs))}")
    for name in ALGORITHMS:
        print(f"| {name} | {' | '.join(cell(args.runs, log, name) for log in args.logs)} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
