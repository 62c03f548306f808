"""`--dry-run`: everything that can be checked is, nothing is computed, written or recorded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from paperworks import papers
from paperworks.cli.dry_run import GOOD
from paperworks.cli.main import main
from paperworks.core.runs import RunStore

Shown = tuple[int, str, str]
PAIRS = [{"prompt": f"p{n} ", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(40)]
FORGOTTEN = [{"prompt": f"p{n}", "response": f"answer {n}"} for n in range(6)]
RDPO = ("train", "rdpo", "--model", "tiny", "--data", "pairs.jsonl")
PPO = ("train", "ppo", "--model", "tiny", "--prompts", "pairs.jsonl", "--reward", "length")
COMPARE = ("compare", "dpo", "--model", "tiny", "--data", "pairs.jsonl")
BC = ("train", "bc", "--data", "log.npz", "--batch-size", "8")
LOGS = ("compare", "bc", "--data", "log.npz", "--env", "Pendulum-v1", "--batch-size", "8")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with rows and a log, and the toy paper among the papers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(papers, "__path__", [*papers.__path__, str(Path(__file__).parent / "toy_papers")])
    for name, rows in (("pairs", PAIRS), ("forgotten", FORGOTTEN)):
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    drawn = np.random.default_rng(0)
    ends = np.arange(40) % 10 == 9
    np.savez(
        "log.npz", observations=drawn.normal(size=(40, 3)), actions=drawn.uniform(-2, 2, size=(40, 1)),
        rewards=drawn.normal(size=40), next_observations=drawn.normal(size=(40, 3)), terminations=ends,
        truncations=np.zeros(40, bool),
    )  # fmt: skip
    return tmp_path


@pytest.fixture
def dry(capsys: pytest.CaptureFixture[str], folder: Path, own_home: Path) -> Callable[..., Shown]:
    """Runs a command with --dry-run; whatever comes of it, no file and no run are left."""
    before = sorted(folder.rglob("*"))

    def command(*words: str) -> Shown:
        code = main([*words, "--dry-run"])
        shown = capsys.readouterr()
        assert sorted(folder.rglob("*")) == before and RunStore().list() == []
        assert not (own_home / "cache").exists()
        return code, shown.out, shown.err

    return command


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("run", "toy-paper", "--seeds", "3"), {"slug": "toy-paper", "budget": "small", "seeds": 3}),
        ((*RDPO, "--flip-rate", "0.2"), {"objective": "rdpo", "model": "tiny"}),
        (("train", "npo", "--model", "tiny", "--forget", "forgotten.jsonl"), {"objective": "npo"}),
        (PPO, {"method": "ppo", "reward": ["length"]}),
        ((*PPO[:-1], "number:answer"), {"reward": ["number:answer"]}),
        (BC, {"algorithm": "bc", "data": "log.npz"}),
        (("train", "iql", "--collect", "Pendulum-v1"), {"algorithm": "iql", "env": "Pendulum-v1"}),
        (("train", "sac", "--env", "Pendulum-v1"), {"acting": "sac", "env": "Pendulum-v1"}),
        (("train", "trpo", "--env", "Pendulum-v1"), {"hybrid": "trpo", "env": "Pendulum-v1"}),
        (COMPARE, {"objectives": ["dpo"], "model": "tiny"}),
        (LOGS, {"methods": ["bc"], "envs": ["Pendulum-v1"]}),
    ],
)
def test_good_options_are_said_to_be_good_with_the_configuration(
    dry: Callable[..., Shown], words: tuple[str, ...], expected: dict[str, Any]
) -> None:
    code, out, err = dry(*words)
    assert code == 0, err
    first, text = out.split("\n", 1)
    config = yaml.safe_load(text)
    assert first == GOOD and {name: config[name] for name in expected} == expected


def test_a_front_is_checked_too(dry: Callable[..., Shown]) -> None:
    pytest.importorskip("mo_gymnasium")
    words = ("train", "c-morl", "--env", "deep-sea-treasure-v0")
    code, out, err = dry(*words, "--reference-point", "0,-50")
    assert code == 0, err
    assert yaml.safe_load(out.split("\n", 1)[1])["front"]["reference_point"] == [0.0, -50.0]
    code, _, err = dry(*words, "--reference-point", "0")
    assert code == 2 and "has 2 objectives" in err


def test_json_is_one_object(dry: Callable[..., Shown]) -> None:
    for words in (("run", "toy-paper"), RDPO, BC, COMPARE, LOGS):
        code, out, _ = dry(*words, "--json")
        found = json.loads(out)
        assert code == 0 and found["ok"] is True and found["config"]


def test_what_is_shown_repeats_the_command(dry: Callable[..., Shown], tmp_path_factory: pytest.TempPathFactory) -> None:
    _, out, _ = dry(*RDPO, "--flip-rate", "0.2")
    file = tmp_path_factory.mktemp("other") / "run.yaml"
    file.write_text(out.split("\n", 1)[1])
    code, again, err = dry("train", "--config", str(file))
    assert code == 0, err
    assert again == out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("run", "toy-paper", "--arms", "god"), "unknown arm 'god' (did you mean 'good'?)"),
        (("run", "toy-paper", "--seeds", "0"), "seeds=0 is out of range"),
        ((*RDPO, "--flip-rate", "0.7"), "flip_rate=0.7"),
        ((*RDPO[:-1], "none.jsonl"), "none.jsonl: no such file"),
        ((*RDPO, "--eval-data", "none.jsonl"), "none.jsonl: no such file"),
        ((*RDPO, "--map", "chosen=best"), "pairs.jsonl:1: field 'chosen': missing"),
        ((*RDPO, "--chat-template", "none.jinja"), "chat template none.jinja: cannot be read"),
        ((*RDPO, "--model", "./none"), "no model folder at ./none"),
        ((*RDPO, "--out", "."), "the folder has something in it"),
        ((*RDPO, "--resume"), "--resume needs the folder"),
        ((*RDPO, "--validation-reward", "lenght"), "unknown reward 'lenght' (did you mean 'length'?)"),
        ((*RDPO, "--validation-reward", "length", "--validation-prompts", "none.jsonl"), "none.jsonl: no such file"),
        (("train", "npo-rt", "--model", "tiny", "--forget", "forgotten.jsonl"), "--retain"),
        (("train", "npo", "--model", "tiny", "--forget", "none.jsonl"), "none.jsonl: no such file"),
        ((*PPO[:-1], "none.py:fn"), "none.py: no such file"),
        ((*PPO, "sentiment"), "2 rewards: say how they become one"),
        ((*PPO[:-1], "regex:("), "regex"),
        (PPO[:-2], "what are answers worth?"),
        ((*PPO, "--prompts", "none.jsonl"), "none.jsonl: no such file"),
        ((*BC, "--data", "none.npz"), "none.npz: no such file"),
        ((*BC, "--batch-size", "500"), "log.npz"),
        ((*BC, "--env", "Pendulum-v9"), "--env Pendulum-v9"),
        (("train", "sac", "--env", "CartPole-v1"), "takes discrete actions"),
        ((*COMPARE[:-1], "none.jsonl"), "none.jsonl: no such file"),
        ((*COMPARE, "--workers", "0"), "--workers 0: expected at least 1"),
        ((*COMPARE, "--reward", "length", "--reward", "none.py:fn"), "none.py: no such file"),
        ((*COMPARE, "--set", "rdpo.flip_rate=0.1"), "rdpo"),
        ((*LOGS, "--data", "log.npz"), "a log is named twice"),
        ((*LOGS, "--set", "alhpa=3"), "none of bc has an option of that name"),
    ],
)
def test_a_mistake_is_one_line_as_in_the_run(dry: Callable[..., Shown], words: tuple[str, ...], line: str) -> None:
    code, out, err = dry(*words)
    assert (code, out) == (2, "")
    assert line in err and len(err.splitlines()) == 1


def test_a_run_to_go_on_with_must_be_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*RDPO, "--dry-run"]) == 0
    (folder / "run").mkdir()
    (folder / "run" / "run.yaml").write_text(capsys.readouterr().out.split("\n", 1)[1])
    words = ("train", "rdpo", "--out", "run", "--resume", "--dry-run")
    assert main([*words]) == 0
    assert main([*words, "--batch-size", "32"]) == 2
    assert "training.batch_size was 16, now 32" in capsys.readouterr().err


def test_a_source_elsewhere_is_not_asked(dry: Callable[..., Shown], monkeypatch: pytest.MonkeyPatch) -> None:
    """A Hub data set, and standard input, which the run itself reads."""
    monkeypatch.setattr("paperworks.language.train_job.read", lambda *_, **__: pytest.fail("was read"))
    for source in ("owner/name", "-"):
        code, _, err = dry(*RDPO[:-1], source)
        assert code == 0, err
