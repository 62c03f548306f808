"""Calibrated rewards: quantiles among the reference's responses to the same prompt, from files and from samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paperworks.core.errors import DataError, RewardError
from paperworks.language.rewards import CalibratedReward, CheckedReward, Transform
from paperworks.language.rewards.calibration import (
    load_reference,
    quantiles,
    quantiles_with_tail,
    reference_scores,
    score_reference,
)

LENGTH = CheckedReward("length", lambda prompts, responses: [len(each) for each in responses])
EIGHT = ["x" * size for size in range(1, 9)]


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_each_prompt_has_a_scale_of_its_own() -> None:
    scaled = CheckedReward("scaled", lambda prompts, responses: [
        len(response) * (1000 if prompt == "loud" else 1) - 5 for prompt, response in zip(prompts, responses)
    ])  # fmt: skip
    reference = score_reference(scaled, ["quiet", "loud"], [EIGHT, EIGHT])
    reward = CalibratedReward(scaled, reference)
    assert reward(["quiet", "loud", "loud"], ["xxxx", "xxxx", "x" * 20]) == [0.4375, 0.4375, 1.0]
    assert reward.saturated(["quiet", "loud"], ["x" * 9, "x"]) == 0.5


def test_the_transform_is_applied_to_the_quantile() -> None:
    reference = score_reference(LENGTH, ["p"], [EIGHT])
    identity, steep = CalibratedReward(LENGTH, reference), CalibratedReward(LENGTH, reference, Transform("exp", 10))
    assert steep(["p"], ["xxxx"]) == pytest.approx(Transform("exp", 10)(identity(["p"], ["xxxx"])).tolist())
    assert steep.name == "exp(10u) of calibrated length"
    lowest = CalibratedReward(LENGTH, reference, Transform("log"))(["p"], [""])
    assert lowest == [0.0]


def test_reference_rewards_survive_saving(tmp_path: Path) -> None:
    reference = score_reference(LENGTH, ["p", "q"], [EIGHT, EIGHT[::-1]])
    reference.save(tmp_path / "reference.jsonl")
    again = load_reference(tmp_path / "reference.jsonl")
    assert {name: values.tolist() for name, values in again.scores.items()} == {
        name: values.tolist() for name, values in reference.scores.items()
    }


def test_what_generate_wrote_is_scored(tmp_path: Path) -> None:
    rows = [
        {"prompt": [{"role": "user", "content": "p"}], "responses": [{"text": text, "logp": -1} for text in EIGHT]},
        {"prompt": "q", "responses": EIGHT},
    ]
    reference = load_reference(write(tmp_path / "responses.jsonl", rows), LENGTH)
    assert reference.of("p").tolist() == reference.of("q").tolist() == list(range(1, 9))
    with pytest.raises(DataError, match="give the reward to score them by"):
        load_reference(tmp_path / "responses.jsonl")


def test_a_prompt_without_reference_responses_is_an_error_before_anything_is_scored() -> None:
    called: list[int] = []
    spy = CheckedReward("spy", lambda prompts, responses: called.append(1) or [0.0] * len(responses))
    reward = CalibratedReward(spy, score_reference(LENGTH, ["p"], [EIGHT]))
    with pytest.raises(RewardError, match="no reference responses for the prompt 'other'"):
        reward(["p", "other"], ["a", "b"])
    assert not called


def test_what_is_to_be_known_beforehand_is_said() -> None:
    reference = reference_scores(["p", "flat"], [list(range(8)), [1.0] * 8])
    few, flat = reference.notes(n=16)
    assert "are few for best of 16" in few and "at least 64" in few
    assert "for 1 of 2 prompts (50%)" in flat and "'flat'" in flat
    assert reference_scores(["p"], [list(range(64))]).notes(n=4) == []


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no reference responses"),
        ([{"prompt": "p", "scores": [1, 2, 3]}], "3 reference rewards for 'p'; expected at least 8"),
        ([{"prompt": "p", "scores": [1.0] * 8}], "all reference responses have the same reward"),
        ([{"prompt": "p", "scores": [1] * 7 + [None]}], "reference.jsonl:1: field 'scores': expected a list of finite"),
        ([{"prompt": "p"}], "expected `scores`"),
        ([{"scores": [1] * 8}], "expected an object with a prompt"),
        ([{"prompt": "p", "responses": [1, 2]}], "expected a list of texts"),
    ],
)
def test_bad_reference_files(rows: list[Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        load_reference(write(tmp_path / "reference.jsonl", rows), LENGTH)


def test_a_missing_or_broken_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.jsonl: cannot be read"):
        load_reference(tmp_path / "none.jsonl")
    (tmp_path / "broken.jsonl").write_text("{\n")
    with pytest.raises(DataError, match=r"broken.jsonl:1: not JSON"):
        load_reference(tmp_path / "broken.jsonl")


def test_a_fitted_tail_tells_the_best_apart_and_leaves_the_rest() -> None:
    reference = np.sort(np.random.default_rng(0).exponential(size=200))
    beyond = reference[-1] + np.array([0.1, 1.0, 3.0])
    assert quantiles(beyond, reference).tolist() == [1, 1, 1]
    tail = quantiles_with_tail(beyond, reference)
    assert (np.diff(tail) > 0).all() and (tail < 1).all() and (tail > 0.98).all()
    low = reference[:100]
    assert quantiles_with_tail(low, reference).tolist() == quantiles(low, reference).tolist()
    few = np.repeat([0.0, 1.0], 10)
    assert quantiles_with_tail([2.0], few).tolist() == [1.0]


def test_a_million_lookups_are_one_call() -> None:
    rewards = np.random.default_rng(1).normal(size=1_000_000)
    found = quantiles(rewards, np.sort(rewards[:100]))
    assert found.mean() == pytest.approx(0.5, abs=0.1)
