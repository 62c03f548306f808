"""Rewards built from options: what is combined, clipped, priced, calibrated, in which order, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from paperworks.core.errors import DataError, OptionError
from paperworks.language.rewards import RewardOptions, reward_from_options, rewards_from_options
from paperworks.language.rewards.ensemble import EnsembleReward

TEXTS = ["good good", "bad", "a good film it is", "an awful bad story of sorts"]


@pytest.fixture
def rows(tmp_path: Path) -> str:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"prompt": "p", "response": text}) + "\n" for text in TEXTS))
    return str(path)


def scores(specs: list[str], text: str = "good film", **options: object) -> float:
    made = reward_from_options(
        specs,
        RewardOptions(**options),  # type: ignore[arg-type]
        count_tokens=lambda texts: [len(each) for each in texts],  # type: ignore[misc]
    )
    return made(["p"], [text])[0]


def test_a_single_reward_is_itself() -> None:
    assert scores(["length"]) == 2


def test_sums_clips_and_prices_on_length() -> None:
    assert scores(["length", "lexicon"], combine="sum") == 3
    assert scores(["length", "lexicon"], combine="sum", combine_weights=(0.5, 10)) == 11
    assert scores(["length"], reward_high=1.5) == 1.5 and scores(["length"], reward_low=4) == 4
    assert scores(["length"], length_penalty=0.1, length_in="characters") == pytest.approx(2 - 0.9)
    assert scores(["length"], length_penalty=0.1) == pytest.approx(2 - 0.9)
    assert scores(["length"], reward_high=1, length_penalty=0.1) == pytest.approx(1 - 0.9)  # length after the clip


def test_ensembles_are_standardised_on_rows_or_raw(rows: str) -> None:
    made = reward_from_options(["length", "lexicon"], RewardOptions(combine="wco", standardise_on=rows))
    assert isinstance(made, EnsembleReward) and made.rule == "wco"
    assert made.member_scores(["p"] * 4, TEXTS).mean(1) == pytest.approx([0, 0])
    assert scores(["length", "lexicon"], combine="wco", standardise_on="raw") == 1


def test_preference_pairs_also_serve_to_standardise(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    pairs = [{"prompt": "p", "chosen": TEXTS[i], "rejected": TEXTS[i + 1]} for i in range(3)]
    path.write_text("".join(json.dumps(row) + "\n" for row in pairs))
    options = RewardOptions(combine="mean", standardise_on=str(path))
    assert reward_from_options(["length", "lexicon"], options).scales is not None  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="no such file"):
        reward_from_options(["length", "lexicon"], RewardOptions(combine="mean", standardise_on="none.jsonl"))


def test_calibration_comes_last(tmp_path: Path) -> None:
    path = tmp_path / "reference.jsonl"
    path.write_text(json.dumps({"prompt": "p", "responses": ["w " * n for n in range(1, 9)]}) + "\n")
    assert scores(["length"], calibrate=str(path)) == 1.5 / 8
    notes: list[str] = []
    options = RewardOptions(calibrate=str(path), inference="bon", inference_n=8)
    steep = reward_from_options(["length"], options, on_note=notes.append)
    assert steep.name == "exp(10u) of calibrated length"
    assert "few for best of 8" in notes[0]


def test_rewards_that_are_not_combined_are_reported_each() -> None:
    assert [each.name for each in rewards_from_options(["length", "lexicon"])] == ["length", "lexicon"]
    summed = rewards_from_options(["length", "lexicon"], RewardOptions(combine="sum"))
    assert [each.name for each in summed] == ["1*length + 1*lexicon"]
    assert rewards_from_options([]) == []


@pytest.mark.parametrize(
    ("specs", "options", "message"),
    [
        ([], {}, "give a reward"),
        (["length", "lexicon"], {}, "2 rewards: say how they become one"),
        (["length", "length"], {"combine": "sum"}, "--reward length is given twice"),
        (["length"], {"combine": "wco"}, "needs at least 2 members"),
        (["length", "lexicon"], {"combine": "uwo"}, "no calibration texts for length"),
        (["length", "lexicon"], {"combine": "sum", "combine_weights": (1.0,)}, "one finite weight a reward"),
        (["length"], {"reward_low": 2, "reward_high": 1}, "low < high"),
    ],
)
def test_what_does_not_fit_is_refused(specs: list[str], options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        reward_from_options(specs, RewardOptions(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"combine_weights": (1.0,)}, "goes with --combine sum"),
        ({"uwo_lambda": -1}, "uwo_lambda"),
        ({"length_penalty": -1}, "length_penalty"),
        ({"transform": "exp"}, "goes with --calibrate"),
        ({"inference": "bon"}, "goes with --calibrate"),
        ({"calibrate": "f", "inference": "bon", "transform_t": -3.0}, "wants t above 0"),
    ],
)
def test_options_that_contradict_each_other(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        RewardOptions(**options)  # type: ignore[arg-type]


def test_tokens_need_something_to_count_them() -> None:
    with pytest.raises(OptionError, match="no model here whose tokens to count"):
        reward_from_options(["length"], RewardOptions(length_penalty=0.1))
