"""A user's desk: a small model in a folder, preference rows in a file, and `paperworks train` on them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).parents[2] / "src"


@pytest.fixture(autouse=True)
def quick_figures(undrawn_figures: None) -> None:
    """Commands write reports; how a figure looks is not what is tested here."""


@pytest.fixture(scope="session")
def review_tokenizer() -> Any:
    from paperworks.language.testbeds.reviews import generate_reviews
    from paperworks.language.tiny import byte_level_tokenizer

    return byte_level_tokenizer([prompt + response for prompt, response in generate_reviews(300, 0)], 400)


@pytest.fixture(scope="session")
def small_model(review_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a causal model of two layers with random weights and a context of 256 tokens."""
    from paperworks.language.tiny import TinySpec, fresh_policy

    policy = fresh_policy(TinySpec(layers=2, width=32, heads=2, context=256), review_tokenizer)
    return policy.save(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="session")
def rows() -> list[dict[str, Any]]:
    """Fourteen preferences: with a batch of 4 the last step of an epoch has two rows."""
    from paperworks.language.testbeds.reviews import generate_reviews

    pairs = zip(generate_reviews(14, 1), generate_reviews(14, 2), strict=True)
    return [{"prompt": g.prompt, "chosen": g.response, "rejected": b.response + " No."} for g, b in pairs]


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def preferences(rows: list[dict[str, Any]], tmp_path: Path) -> Path:
    return write_rows(tmp_path / "preferences.jsonl", rows)


@dataclass
class Outcome:
    """What one command left: its exit code and what it printed."""

    code: int
    out: str
    err: str

    def refused(self) -> str:
        """The one line of an error that the user can mend."""
        assert self.code == 2, (self.code, self.err)
        lines = self.err.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith("paperworks: error: "), self.err
        return lines[0]


Train = Callable[..., Outcome]


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Train:
    """Runs the command line in this process."""

    def run(*argv: object) -> Outcome:
        from paperworks.cli.main import main

        capfd.readouterr()
        code = main([str(word) for word in argv])
        out, err = capfd.readouterr()
        return Outcome(code, out, err)

    return run


@pytest.fixture
def arguments(small_model: Path, preferences: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """The words of a quick `paperworks train`: four steps of four rows; more options override."""

    def words(
        objective: str = "dpo", *more: object, model: object = small_model, data: object = preferences
    ) -> list[str]:
        fixed = ["train", objective, "--quiet", "--model", model, "--data", data]
        quick = ["--steps", 4, "--batch-size", 4, "--learning-rate", 0.001]
        given = list(more) if "--out" in more else ["--out", tmp_path / "out", *more]
        return [str(word) for word in (*fixed, *quick, *given)]

    return words


@pytest.fixture
def train(command: Train, arguments: Callable[..., list[str]]) -> Train:
    """`paperworks train` in this process, quick, into tmp_path/out unless told otherwise."""
    return lambda *more, **named: command(*arguments(*more, **named))


@pytest.fixture
def own_process() -> Callable[..., subprocess.Popen[str]]:
    """Starts `python -m paperworks …` as a process of its own; `code` runs before it (a fault to put in place)."""

    def start(argv: Iterable[object], *, code: str = "") -> subprocess.Popen[str]:
        program = f"{code}\nimport sys\nfrom paperworks.cli.main import main\nraise SystemExit(main(sys.argv[1:]))"
        path = os.pathsep.join([str(SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])])
        return subprocess.Popen(
            [sys.executable, "-c", program, *map(str, argv)],
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start
