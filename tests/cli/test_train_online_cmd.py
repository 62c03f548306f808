"""`paperworks train METHOD --prompts FILE --reward R`: words become a run; mistakes cost one line and exit 2."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from paperworks.cli.main import main
from paperworks.cli.train_cmd import parse
from paperworks.cli.train_online import job_values
from paperworks.language.online.job import OnlineJob, online_job_from_config
from paperworks.language.testbeds.reviews import generate_reviews
from paperworks.language.tiny import TinySpec, byte_level_tokenizer, fresh_policy

torch.set_num_threads(1)
Outcome = tuple[int, str, str]
QUICK = ["--iterations", 2, "--prompts-per-iteration", 2, "--max-new-tokens", 4]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = byte_level_tokenizer([p + r for p, r in generate_reviews(200, 0)], 350)
    folder = tmp_path_factory.mktemp("models") / "small"
    return fresh_policy(TinySpec(layers=1, width=32, heads=2, context=64), tokenizer).save(folder)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with prompts and a reward, where the command runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PAPERWORKS_HOME", str(tmp_path / "home"))
    (tmp_path / "prompts.jsonl").write_text(
        "".join(json.dumps({"prompt": p}) + "\n" for p, _ in generate_reviews(4, 1))
    )
    (tmp_path / "reward.py").write_text("def short(prompts, responses):\n    return [-len(r) for r in responses]\n")
    return tmp_path


@pytest.fixture
def train(desk: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs `train METHOD` with the model, the prompts and the reward, unless a word among them is left out."""

    def run(method: str, *more: object, without: str = "", **instead: object) -> Outcome:
        fixed: dict[str, object] = {"model": model, "prompts": "prompts.jsonl", "reward": "reward.py:short", **instead}
        words = [word for name, value in fixed.items() if name != without for word in (f"--{name}", value)]
        capsys.readouterr()
        code = main([str(word) for word in ("train", method, "--quiet", *words, *more)])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


def refused(outcome: Outcome) -> str:
    code, _, err = outcome
    assert code == 2, err
    (line,) = err.strip().splitlines()
    assert line.startswith("paperworks: error: ")
    return line


def job(*words: object) -> OnlineJob:
    return online_job_from_config(job_values(parse([str(word) for word in words])))


# ------------------------------------------------------------------------------------------------------- words to a job


def test_words_become_a_job() -> None:
    made = job(
        "rloo", "--model", "tiny", "--prompts", "a.jsonl", "--reward", "length", "vowels", "--kl-coef", 0.2, "--samples", 8,
        "--learning-rate", "3e-6", "--map", "prompt=question", "--clip", 0.1, "--gold-reward", "gold", "--lora",
    )  # fmt: skip
    assert (made.method, made.model, made.prompts.path, made.prompts.mapping) == (
        "rloo", "tiny", "a.jsonl", {"prompt": "question"},
    )  # fmt: skip
    assert (made.reward, made.gold_reward) == (("length", "vowels"), ("gold",))
    assert (made.online.kl_coef, made.online.samples, made.training.learning_rate) == (0.2, 8, 3e-6)
    assert made.objective.clip == 0.1 and made.lora is not None  # type: ignore[attr-defined]


def test_a_method_s_own_defaults_stand_below_what_is_given() -> None:
    words = ("--model", "tiny", "--prompts", "a.jsonl", "--reward", "r")
    assert (job("ppo", *words).online.samples, job("ppo", *words).online.updates) == (1, 4)
    assert job("ppo", *words, "--samples", 3).online.samples == 3


@pytest.mark.parametrize("spelling", ["online-dpo", "ONLINE_DPO"])
def test_a_method_s_name_is_read_kindly(spelling: str) -> None:
    assert job(spelling, "--model", "tiny", "--prompts", "a.jsonl").method == "online-dpo"


@pytest.mark.parametrize("method", ["grpo", "xpo", "hypo"])
def test_help_lists_a_method_s_options(method: str, desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", method, "--prompts", "p", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(option in shown for option in ("--prompts", "--reward", "--kl-stop", "--max-new-tokens", "--resume"))
    assert ("--judge" in shown) == (method == "xpo")


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("method", "more", "instead", "without", "said"),
    [
        ("grpo", [], {}, "prompts", "give the prompts to answer: --prompts FILE"),
        ("grpo", [], {}, "reward", "train grpo: what are answers worth? Give --reward R"),
        ("online-dpo", [], {}, "reward", "--reward R, or --judge J"),
        ("grpo", [], {}, "model", "give the model to train: --model"),
        ("grpo", ["--judge", "reward.py:short"], {}, "reward", "unknown option --judge"),
        ("grpo", ["--samplse", 3], {}, "", "unknown option --samplse (did you mean '--samples'?)"),
        ("grpo", ["--gae-decay", 0.5], {}, "", "unknown option --gae-decay"),
        ("grppo", [], {}, "", "unknown online method 'grppo' (did you mean 'grpo'?)"),
        ("grpo", ["--minibatches", 3, "--prompts-per-iteration", 2], {}, "", "minibatches=3: expected at most"),
        ("rloo", ["--kl-control", "adaptive"], {}, "", "give --kl-target 6"),
        ("grpo", ["--kl-control", "adaptive", "--kl-target", 6], {}, "", "adaptive control is for reinforce, rloo, ppo"),
        ("grpo", ["--samples", 1], {}, "", "samples=1: grpo learns from how answers to the same prompt differ"),
        ("grpo", ["--clip", 1.5], {}, "", "clip=1.5"),
        ("grpo", [], {"prompts": "missing.jsonl"}, "", "missing.jsonl"),
        ("grpo", [], {"reward": "missing.py:f"}, "", "missing.py: no such file"),
        ("grpo", [], {"reward": "reward.py:long"}, "", "long"),
        ("online-dpo", ["--judge", "missing.py:f"], {}, "reward", "missing.py: no such file"),
        ("dpo", [], {}, "", "train dpo: learns from rows, give --data FILE; on its own answers learn: reinforce"),
        ("grpo", ["--resume"], {}, "", "--resume needs the folder of the run: --out DIR"),
        ("grpo", ["--validation-reward", "length"], {}, "", "--validation-prompts FILE"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(
    method: str, more: list[object], instead: dict[str, object], without: str, said: str, train: Callable[..., Outcome]
) -> None:
    assert said in refused(train(method, *more, without=without, **instead))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"prompt": "short"}, {"prompt": "so very long " * 60}], "prompts.jsonl:2: field 'prompt': the prompt has"),
        ([{"question": "why"}], "prompts.jsonl:1"),
        ([], "prompts.jsonl"),
    ],
    ids=["no room", "no prompt", "no rows"],
)
def test_prompts_that_cannot_be_answered(
    rows: list[dict[str, Any]], said: str, desk: Path, train: Callable[..., Outcome]
) -> None:
    (desk / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert said in refused(train("grpo", *QUICK, "--out", "out"))
    assert not (desk / "out" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("code", "said"),
    [("return [float('nan')] * len(responses)", "nan"), ("return [1.0]", "8"), ("return 1 / 0", "division by zero")],
)
def test_a_reward_that_fails_is_one_line(code: str, said: str, desk: Path, train: Callable[..., Outcome]) -> None:
    (desk / "bad.py").write_text(f"def bad(prompts, responses):\n    {code}\n")
    line = refused(train("grpo", *QUICK, "--samples", 4, "--out", "out", reward="bad.py:bad"))
    assert "bad.py" in line and said in line
    assert train("grpo", *QUICK, "--out", "out")[0] == 0  # nothing began, so that the folder is free


# -------------------------------------------------------------------------------------------------------------- the run


def metrics(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith("seconds") and k != "time"} for row in rows]


def test_a_run_leaves_a_model_a_report_and_what_repeats_it(desk: Path, train: Callable[..., Outcome]) -> None:
    code, out, err = train("rloo", *QUICK, "--seed", 3, "--out", "out", "--gold-reward", "reward.py:short")
    assert code == 0, err
    assert "out/model" in out and "out/report.html" in out and "paperworks generate --model out" in out
    folder = desk / "out"
    config = yaml.safe_load((folder / "run.yaml").read_text())
    assert (config["method"], config["training"]["seed"], config["online"]["iterations"]) == ("rloo", 3, 2)
    page = (folder / "report.html").read_text()
    assert "Means over an iteration" in page and "Two unbiased estimates" in page and "gold reward" in page
    rows = metrics(folder)
    assert [row["step"] for row in rows] == [1, 2]
    assert {"reward", "gold_reward", "kl", "kl_k3", "kl_token", "kl_weight", "length", "silent_groups"} <= set(rows[0])

    assert main(["train", "--config", str(folder / "run.yaml"), "--out", "again", "--quiet"]) == 0
    assert metrics(desk / "again") == rows
    assert (desk / "again" / "samples.jsonl").read_bytes() == (folder / "samples.jsonl").read_bytes()
    assert main(["generate", "--model", "out", "--prompt", "The film", "--max-new-tokens", "2"]) == 0


def test_a_stopped_run_goes_on_with_its_own_options(desk: Path, train: Callable[..., Outcome]) -> None:
    """Its reward fails in the third iteration, is mended, and the run ends as if nothing had been."""
    options = ["--iterations", 4, "--prompts-per-iteration", 2, "--max-new-tokens", 4, "--save-every", 1]
    assert train("grpo", *options, "--out", "whole")[0] == 0
    mended = (desk / "reward.py").read_text()
    (desk / "reward.py").write_text(
        "CALLS = []\ndef short(prompts, responses):\n    CALLS.append(1)\n    assert len(CALLS) < 3\n"
        "    return [-len(r) for r in responses]\n"
    )
    assert train("grpo", *options, "--out", "out")[0] == 2
    (desk / "reward.py").write_text(mended)
    assert "use --resume, --overwrite" in refused(train("grpo", *options, "--out", "out"))
    assert "online.samples was 4, now 3" in refused(train("grpo", "--samples", 3, "--out", "out", "--resume"))
    assert main(["train", "grpo", "--out", "out", "--resume", "--quiet"]) == 0
    assert metrics(desk / "out") == metrics(desk / "whole")
    assert (desk / "out" / "model" / "model.safetensors").read_bytes() == (
        desk / "whole" / "model" / "model.safetensors"
    ).read_bytes()


def test_json_is_the_result(train: Callable[..., Outcome]) -> None:
    code, out, _ = train("grpo", *QUICK, "--out", "out", "--json", "--lora", "--lora-rank", 2)
    found = json.loads(out)
    assert code == 0 and found["iterations"] == 2 and found["sampled_tokens"] > 0
    assert Path(found["folder"], "model", "adapter_config.json").is_file()


def test_a_judge_takes_the_place_of_a_reward(desk: Path, train: Callable[..., Outcome]) -> None:
    (desk / "judge.py").write_text("def longer(p, a, b):\n    return [float(len(x) > len(y)) for x, y in zip(a, b)]\n")
    code, _, err = train("online-ipo", *QUICK, "--out", "out", "--judge", "judge.py:longer", without="reward")
    assert code == 0, err
    assert "reward" not in json.loads((desk / "out" / "samples.jsonl").read_text().splitlines()[0])


def test_a_gold_reward_is_held_to_the_time_limit_too(desk: Path, train: Callable[..., Outcome]) -> None:
    (desk / "slow.py").write_text("import time\n\ndef slow(prompts, responses):\n    time.sleep(30)\n")
    outcome = train("rloo", *QUICK, "--gold-reward", "slow.py:slow", "--reward-timeout", 0.2)
    assert "slow.py:slow: no answer about" in refused(outcome)
