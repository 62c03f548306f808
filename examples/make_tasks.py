"""Writes small files to try other kinds of training on: texts to forget and to keep, scored answers.

python examples/make_tasks.py tasks
"""

import dataclasses
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from paperworks.language.rewards import load_reward
from paperworks.language.testbeds.facts import make_world
from paperworks.language.testbeds.reviews import generate_reviews


def main(folder: str, answers: int = 400) -> None:
    """Write forget.jsonl and retain.jsonl (invented people, with paraphrased and wrong answers) and scored.jsonl."""
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    world = make_world(seed=0, forget=2, retain=4, held_out=1)
    for name, rows in (("forget", world.forget), ("retain", world.retain)):
        _write(place / f"{name}.jsonl", (dataclasses.asdict(row, dict_factory=_fields) for row in rows))
    reviews = generate_reviews(answers, seed=1)
    rewards = load_reward("sentiment")([prompt for prompt, _ in reviews], [response for _, response in reviews])
    scored = ({"prompt": p, "response": r, "reward": reward} for (p, r), reward in zip(reviews, rewards, strict=True))
    _write(place / "scored.jsonl", scored)


def _fields(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The fields of a row but where it was read from."""
    return {name: value for name, value in pairs if name != "where"}


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "tasks")
