"""Seconds from the shell to the last line of the catalogue commands (whole processes, the median of ten)."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time


def main() -> None:
    for words in (["list"], ["show", "rdpo"], ["search", "noisy labels"], ["--version"]):
        taken = []
        for _ in range(11):
            began = time.perf_counter()
            subprocess.run([sys.executable, "-m", "paperworks", *words], check=True, capture_output=True)
            taken.append(time.perf_counter() - began)
        taken = taken[1:]  # the first builds the index
        print(f"paperworks {' '.join(words)}: {statistics.median(taken):.3f} s [{min(taken):.3f}, {max(taken):.3f}]")


if __name__ == "__main__":
    main()
