"""samples.jsonl of an online run: a few answers of every iteration, a table that a person can read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paperworks.core.files import write_atomic
from paperworks.language.data.conversation import plain_text
from paperworks.language.online.rollouts import Rollouts

SAMPLES = "samples.jsonl"


def lines_of(rollouts: Rollouts, iteration: int, most: int) -> list[dict[str, Any]]:
    """The first `most` answers: iteration (1-based), prompt, answer, whether it ended, reward and KL where known."""
    kl = None if rollouts.reference is None else rollouts.summed(rollouts.log_ratio).tolist()
    lines = []
    for index in range(min(most, len(rollouts))):
        line: dict[str, Any] = {
            "iteration": iteration,
            "prompt": plain_text(rollouts.prompts[int(rollouts.group[index])]),
            "answer": rollouts.texts[index],
            "finished": bool(rollouts.finished[index]),
        }
        if len(rollouts.rewards):
            line["reward"] = round(float(rollouts.rewards[index]), 6)
        if kl is not None:
            line["kl"] = round(kl[index], 6)
        lines.append(line)
    return lines


def append(folder: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Write the lines behind those that are there."""
    with (folder / SAMPLES).open("a", encoding="utf-8") as file:
        file.write("".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines))


def cut(folder: Path, iterations: int) -> None:
    """Drop what is there of iterations that will be run again."""
    path = folder / SAMPLES
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["iteration"] <= iterations:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue  # a line cut off when the run was killed
    write_atomic(path, "".join(f"{line}\n" for line in kept).encode())
