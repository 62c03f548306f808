"""`make bench`: every benchmark, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def main() -> int:
    codes = []
    for name in ("start_up", "sampling_speed", "training_speed"):
        print(f"# {name}", flush=True)
        codes.append(subprocess.run([sys.executable, str(Path(__file__).with_name(f"{name}.py"))]).returncode)
    return max(codes)


if __name__ == "__main__":
    raise SystemExit(main())
