"""`paperworks train a-lol …`: learning from scored answers, what is kept of the rows, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

WORDS = 24  # most words of an answer here, so that rewards lie between 0 and 1
REWARD = f"""
def words(prompts, responses):
    return [min(1.0, len(response.split()) / {WORDS}) for response in responses]

def full_stop(prompts, responses):
    return [float(response.strip().endswith(".")) for response in responses]

def negative(prompts, responses):
    return [-1.0 for _ in responses]
"""


@pytest.fixture(scope="module")
def answers() -> list[dict[str, Any]]:
    """Thirty answers of two to a dozen words, each with the reward that `words` gives it."""
    from paperworks.language.testbeds.reviews import generate_reviews

    rows = [
        {"prompt": f"{n}. {review.prompt}", "response": review.response if n % 3 else " It was."}
        for n, review in enumerate(generate_reviews(30, 3))
    ]
    return [{**row, "reward": min(1.0, len(row["response"].split()) / WORDS)} for row in rows]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def scored(answers: list[dict[str, Any]], tmp_path: Path) -> Path:
    return write(tmp_path / "scored.jsonl", answers)


@pytest.fixture
def reward(tmp_path: Path) -> str:
    (tmp_path / "rewards.py").write_text(REWARD)
    return f"{tmp_path / 'rewards.py'}:words"


QUICK = ("--quiet", "--steps", 3, "--batch-size", 4, "--learning-rate", 0.001, "--held-out", 4)


@pytest.fixture
def learn(command: Any, small_model: Path, scored: Path, tmp_path: Path) -> Callable[..., Any]:
    """`paperworks train OBJECTIVE` on the scored answers, quick, into tmp_path/out unless told otherwise."""

    def run(objective: str, *more: object, data: Path = scored) -> Any:
        out = () if "--out" in more else ("--out", tmp_path / "out")
        value = ("--value-max-new-tokens", 3) if objective.startswith("a-lol") else ()
        return command("train", objective, "--model", small_model, "--data", data, *QUICK, *value, *out, *more)

    return run


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def test_it_leaves_a_run_with_the_value_and_the_share_of_rows_kept(
    learn: Any, reward: str, answers: list[dict[str, Any]], tmp_path: Path
) -> None:
    from paperworks.language.values.head import ValueHead

    outcome = learn("a-lol", "--reward", reward)
    assert outcome.code == 0 and outcome.err == ""
    out = tmp_path / "out"
    for name in ("run.yaml", "report.html", "metrics.jsonl", "model/config.json", "value_head/value_head.safetensors"):
        assert (out / name).stat().st_size > 0, name
    found = results(out)
    settled = found["preparation"]
    assert (
        settled["rows"] == 30 - 4 - settled["value"]["prompts"]
    )  # rows that the value is fitted on are not trained on
    assert found["training_rows"] == settled["kept"] <= settled["rows"]
    assert settled["positive_share"] == pytest.approx(settled["kept"] / settled["rows"])
    assert settled["advantage_percentiles"]["5"] <= settled["advantage_percentiles"]["95"]
    share = f"{settled['kept']} of {settled['rows']} rows ({settled['positive_share']:.1%})"
    assert any(share in note for note in found["notes"])
    assert found["first"]["advantage"] > 0
    head = ValueHead.load(out / "value_head")
    width = json.loads((out / "model" / "config.json").read_text())["hidden_size"]
    with torch.no_grad():
        value = head(torch.randn(1, 5, width), torch.ones(1, 5, dtype=torch.bool))
    assert 0 <= float(value) <= 1
    assert not any("value" in name for name in load_file(out / "model" / "model.safetensors"))


def test_the_rows_kept_are_those_above_the_value(learn: Any, reward: str, tmp_path: Path) -> None:
    """A value fitted to rewards of 0 keeps every row with a positive reward; one fitted to 0.2, fewer."""
    kept = []
    for value in (0.0, 0.2):
        rows = [{"prompt": f"Number {n}", "response": "x", "reward": value} for n in range(8)]
        stored = write(tmp_path / f"value-{value}.jsonl", rows)
        options = ("--value-data", stored, "--value-epochs", 40, "--value-learning-rate", 0.05)
        assert learn("a-lol", *options, "--out", tmp_path / f"{value}").code == 0
        settled = results(tmp_path / f"{value}")["preparation"]
        assert settled["rows"] == 26  # no row was needed for the value
        kept.append(settled["kept"])
    assert kept[0] == 26 > kept[1] > 0


@pytest.mark.parametrize(
    ("objective", "has_value"),
    [("a-lol-seq", True), ("a-lol-kl", True), ("a-lol-ref-free", True), ("r-lol", False), ("wbc", False), ("r-gold", False)],
)  # fmt: skip
def test_every_variant_trains_from_the_same_rows(
    objective: str, has_value: bool, learn: Any, reward: str, tmp_path: Path
) -> None:
    outcome = learn(objective, *(("--reward", reward) if has_value else ()))
    assert outcome.code == 0, outcome.err
    assert results(tmp_path / "out")["steps"] == 3
    assert (tmp_path / "out" / "value_head").is_dir() == has_value


def test_the_best_share_of_rows_can_be_imitated(learn: Any, tmp_path: Path) -> None:
    assert learn("filtered-nll", "--keep-share", 0.25).code == 0
    settled = results(tmp_path / "out")["preparation"]
    assert (settled["rows"], settled["kept"], results(tmp_path / "out")["training_rows"]) == (26, 6, 6)


def test_several_rewards_are_summed_with_weights(learn: Any, reward: str, answers: Any, tmp_path: Path) -> None:
    rows = [
        {
            "prompt": row["prompt"],
            "response": row["response"],
            "rewards": {"words": row["reward"], "stop": float(row["response"].endswith("."))},
        }
        for row in answers
    ]
    both = f"{reward},{reward.replace(':words', ':full_stop')}"
    options = ("--reward", both, "--reward-weights", "1,0.5")
    assert learn("a-lol", *options, data=write(tmp_path / "several.jsonl", rows)).code == 0
    found = results(tmp_path / "out")
    assert found["preparation"]["reward"] == {"formula": "R = words + 0.5 * stop", "range": [0, 1.5]}


def test_adapters_resume_to_the_same_end(
    learn: Any, command: Any, reward: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from paperworks.core import checkpoints
    from paperworks.core.errors import RunError

    options = ("--reward", reward, "--save-every", 1, "--lora", "--lora-rank", 2, "--lora-dropout", 0.3)
    assert learn("a-lol-seq", *options, "--out", tmp_path / "whole").code == 0

    def fails_at_two(folder: Path, model: Any, optimiser: Any, state: Any) -> None:
        if state["step"] == 2:
            raise RunError("the disk went away")
        really(folder, model, optimiser, state)

    really = checkpoints.save_checkpoint
    with monkeypatch.context() as fault:
        fault.setattr(checkpoints, "save_checkpoint", fails_at_two)
        assert "went away" in learn("a-lol-seq", *options).refused()
    assert command("train", "--resume", "--out", tmp_path / "out", "--quiet").code == 0
    found, wanted = results(tmp_path / "out"), results(tmp_path / "whole")
    for name in ("steps", "history", "best_step", "preparation"):
        assert found[name] == wanted[name], name
    for name in ("model/adapter_model.safetensors", "value_head/value_head.safetensors"):
        one, two = (load_file(tmp_path / out / name) for out in ("whole", "out"))
        assert {key: value.tolist() for key, value in one.items()} == {
            key: value.tolist() for key, value in two.items()
        }


def test_its_configuration_repeats_it(learn: Any, command: Any, reward: str, tmp_path: Path) -> None:
    assert learn("a-lol", "--reward", reward, "--clip-eps", 0.5, "--sampling-strategy", "shuffle").code == 0
    config = tmp_path / "out" / "run.yaml"
    assert yaml.safe_load(config.read_text())["options"]["reward"] == [reward]
    assert command("train", "--config", config, "--out", tmp_path / "again", "--quiet").code == 0
    one, two = (load_file(tmp_path / out / "model" / "model.safetensors") for out in ("out", "again"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_the_weights_to_keep_can_be_chosen_by_a_reward(learn: Any, reward: str, tmp_path: Path) -> None:
    options = ("--validation-reward", reward, "--validation-max-new-tokens", 6, "--eval-every", 1)
    assert learn("a-lol", "--reward", reward, *options).code == 0
    found = results(tmp_path / "out")
    rewards = [entry["validation_reward"] for entry in found["history"]]
    assert len(rewards) == 4 and all("unfinished" in entry for entry in found["history"])
    assert found["best_step"] == rewards.index(max(rewards))


def test_prompts_to_choose_by_may_be_a_file(learn: Any, reward: str, answers: Any, tmp_path: Path) -> None:
    prompts = write(tmp_path / "prompts.jsonl", [{"prompt": row["prompt"]} for row in answers[:3]])
    options = ("--validation-reward", reward, "--validation-prompts", prompts, "--validation-max-new-tokens", 4)
    assert learn("wbc", *options, "--held-out", 0).code == 0
    found = results(tmp_path / "out")
    assert found["held_out_rows"] == 0 and all("validation_reward" in entry for entry in found["history"])


# -------------------------------------------------------------------------------------------------------------- bad input


@pytest.fixture
def refuse(learn: Any, tmp_path: Path) -> Callable[..., str]:
    """The one line of a run that is refused; nothing is left behind."""

    def run(*words: object, **named: Any) -> str:
        line: str = learn(*words, **named).refused()
        assert not (tmp_path / "out").exists()
        return line

    return run


def changed(rows: list[dict[str, Any]], at: int | None, **values: Any) -> list[dict[str, Any]]:
    """The rows with other values in one of them, or in all."""
    return [{**row, **values} if at in (None, number) else row for number, row in enumerate(rows)]


def test_missing_rewards_are_named(refuse: Any, reward: str, answers: Any, tmp_path: Path) -> None:
    rows = [{key: value for key, value in row.items() if key != "reward"} for row in answers]
    line = refuse("a-lol", "--reward", reward, data=write(tmp_path / "bare.jsonl", rows))
    assert "bare.jsonl:1: field 'reward': missing" in line and "29 more" in line


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "good", True, None])
def test_a_reward_that_is_no_number_is_named(
    value: Any, refuse: Any, reward: str, answers: Any, tmp_path: Path
) -> None:
    line = refuse("a-lol", "--reward", reward, data=write(tmp_path / "odd.jsonl", changed(answers, 4, reward=value)))
    assert "odd.jsonl:5: field 'reward'" in line


@pytest.mark.parametrize("objective", ["a-lol", "r-lol", "wbc", "filtered-nll"])
def test_constant_rewards_teach_nothing(objective: str, refuse: Any, reward: str, answers: Any, tmp_path: Path) -> None:
    more = ("--reward", reward) if objective == "a-lol" else ()
    line = refuse(objective, *more, data=write(tmp_path / "same.jsonl", changed(answers, None, reward=0.5)))
    assert "same.jsonl: field 'reward': all 26 responses have the reward 0.5" in line


def test_rewards_out_of_range_say_how_to_give_it(refuse: Any, reward: str, answers: Any, tmp_path: Path) -> None:
    rows = write(tmp_path / "far.jsonl", changed(answers, None, reward=70))
    line = refuse(
        "a-lol", "--reward", reward, data=write(rows, changed(changed(answers, None, reward=70), 3, reward=71))
    )
    assert "far.jsonl:" in line and "out of range: expected 0 to 1" in line and "--reward-range LOW,HIGH" in line


def test_something_must_score_the_references_answers(refuse: Any) -> None:
    line = refuse("a-lol")
    assert "--reward NAME" in line and "--value-data FILE" in line


def test_where_no_answer_beats_the_reference_that_is_said(refuse: Any, tmp_path: Path) -> None:
    rows = [{"prompt": f"Number {n}", "response": "x", "reward": 1.0} for n in range(8)]
    stored = write(tmp_path / "value.jsonl", rows)
    line = refuse("a-lol", "--value-data", stored, "--value-epochs", 60, "--value-learning-rate", 0.05)
    assert "no positive advantage" in line and "kept 0 of 26 rows" in line


@pytest.mark.parametrize(
    ("weights", "named"),
    [
        ("1", "option reward_weights has 1 weights, the rows have 2 rewards (a, b)"),
        ("1,2,3", "option reward_weights has 3 weights, the rows have 2 rewards (a, b)"),
        ("0,0", "expected at least one that is not 0"),
        ("1,nan", "--reward-weights: expected a number, got 'nan'"),
    ],
)
def test_several_rewards_need_a_weight_each(
    weights: str, named: str, refuse: Any, reward: str, answers: Any, tmp_path: Path
) -> None:
    data = write(tmp_path / "two.jsonl", changed(answers, None, rewards={"a": 0.25, "b": 0.5}))
    assert named in refuse("a-lol", "--reward", f"{reward},{reward}", "--reward-weights", weights, data=data)


def test_as_many_functions_as_rewards(refuse: Any, reward: str, answers: Any, tmp_path: Path) -> None:
    data = write(tmp_path / "two.jsonl", changed(answers, None, rewards={"a": 0.25, "b": 0.5}))
    data = write(data, changed(changed(answers, None, rewards={"a": 0.25, "b": 0.5}), 2, rewards={"a": 0.5, "b": 0.1}))
    line = refuse("a-lol", "--reward", ",".join([reward] * 3), data=data)
    assert "option reward names 3 rewards, the rows have 2 (a, b)" in line


def test_a_reward_function_beyond_the_range_is_named(refuse: Any, reward: str) -> None:
    line = refuse("a-lol", "--reward", reward.replace(":words", ":negative"))
    assert "outside the rewards' range 0 to 1" in line and "--reward-range" in line


def test_negative_rewards_are_not_multiplied_by(refuse: Any, answers: Any, tmp_path: Path) -> None:
    data = write(tmp_path / "below.jsonl", changed(answers, 3, reward=-0.5))
    assert "negative weights" in refuse("wbc", "--reward-range=-1,1", data=data)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--reward", "lexxicon"), "did you mean 'lexicon'?"),
        (("--reward", "length", "--reward-range", "3,1"), "reward_range"),
        (("--reward", "length", "--reward-range", "3"), "--reward-range"),
        (("--reward", "length", "--clip-eps", 0), "clip_eps"),
        (("--reward", "length", "--value-head", "transformer"), "transformer"),
        (("--reward", "length", "--value-generations", 0), "value_generations"),
        (("--reward", "length", "--sampling-strategy", "greedy"), "greedy"),
        (("--reward", "length", "--no-double-weight", "--sampling-strategy", "shuffle"), "double_weight"),
        (("--value-data", "nowhere.jsonl"), "nowhere.jsonl"),
        (("--reward", "length", "--value-prompts", "nowhere.jsonl"), "nowhere.jsonl"),
        (("--reward", "length", "--validation-reward", "lexxicon"), "did you mean 'lexicon'?"),
        (("--reward", "length", "--validation-reward", "length", "--held-out", 0), "--validation-prompts FILE"),
        (("--reward", "length", "--forget", "x.jsonl"), "unknown option --forget"),
    ],
)
def test_options_out_of_range_or_unknown(words: Any, named: str, refuse: Any) -> None:
    assert named in refuse("a-lol", *words)
