"""Objectives on scored responses: their options, and what preparing does to rows, values and notes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from paperworks.core.errors import DataError, OptionError
from paperworks.core.options import build, to_mapping
from paperworks.language.data import Dataset
from paperworks.language.data.schemas import Scored, Where
from paperworks.language.items import Items, tokenise
from paperworks.language.objectives.lol import (
    AdvantageLoL,
    AdvantageLoLKL,
    AdvantageLoLRefFree,
    AdvantageLoLSequence,
    RewardLoL,
)
from paperworks.language.objectives.objective import ByToken, Prepared, ResponseLogps, StepInputs
from paperworks.language.objectives.row_rewards import reward_rule
from paperworks.language.objectives.scored import FilteredNLL, PrioritySampled, RewardGOLD, ScoredObjective, WeightedBC
from paperworks.language.policy import LoraOptions, Policy
from paperworks.language.training import TrainOptions, train
from paperworks.language.values import ValueHead

ALL: list[type[ScoredObjective]] = [
    AdvantageLoL,
    AdvantageLoLKL,
    AdvantageLoLRefFree,
    AdvantageLoLSequence,
    RewardLoL,
    WeightedBC,
    RewardGOLD,
    FilteredNLL,
]
ADVANTAGE = ALL[:4]

every_objective = pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.name)
every_advantage = pytest.mark.parametrize("cls", ADVANTAGE, ids=lambda cls: cls.name)

REWARD = "def share_of_e(prompt, response):\n    return response.count('e') / max(1, len(response))\n"
ROWS = [Scored(f"question {i % 7}", f" {'e' * (i % 5)}{'x' * (1 + i % 3)}", 0.0) for i in range(40)]


def share_of_e(response: str) -> float:
    return response.count("e") / max(1, len(response))


@pytest.fixture
def reward(tmp_path: Path) -> str:
    (tmp_path / "rewards.py").write_text(REWARD)
    return f"{tmp_path / 'rewards.py'}:share_of_e"


@pytest.fixture
def rows() -> Dataset[Scored]:
    return Dataset(tuple(dataclasses.replace(row, reward=share_of_e(str(row.response))) for row in ROWS))


def stored(path: Path, value: float, *more: Mapping[str, Any]) -> str:
    """A file of scored answers of the reference, all of reward `value`."""
    records = [{"prompt": f"question {i}", "response": " answer", "reward": value} for i in range(5)]
    path.write_text("\n".join(json.dumps(record) for record in [*records, *more]) + "\n")
    return str(path)


# ------------------------------------------------------------------------------------------------------------- options


@every_objective
def test_options_survive_a_mapping(cls: type[ScoredObjective]) -> None:
    objective = build(cls, {"reward_weights": "1,2", "reward_range": "0,3"})
    assert objective.reward_weights == (1.0, 2.0) and objective.reward_range == (0.0, 3.0)
    assert build(cls, to_mapping(objective)) == objective


def test_the_penalty_s_variant_refuses_a_clip() -> None:
    with pytest.raises(OptionError, match=r"clip_eps=0\.9: expected none with a-lol-kl"):
        AdvantageLoLKL(clip_eps=0.9)


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (AdvantageLoL, {"clip_eps": 0.0}, "clip_eps=0.0 is out of range"),
        (AdvantageLoL, {"sampling_strategy": "best"}, "expected priority, uniform_positive, shuffle"),
        (AdvantageLoL, {"double_weight": False, "sampling_strategy": "shuffle"}, "neither sampling nor loss"),
        (AdvantageLoL, {"filter_negative": False}, "true where sampling_strategy is not shuffle"),
        (AdvantageLoL, {"value_head": "linear"}, "expected attention, mean, mlp"),
        (WeightedBC, {"reward_transform": "tanh"}, "expected none or sigmoid"),
        (WeightedBC, {"reward_range": (1.0, 0.0)}, "LOW < HIGH"),
        (FilteredNLL, {"keep_share": 0.0}, "keep_share=0.0 is out of range"),
    ],
)
def test_options_out_of_range(cls: type[ScoredObjective], options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        cls(**options)


@every_objective
def test_needs_say_what_the_loss_uses(cls: type[ScoredObjective]) -> None:
    policy, reference = torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -1.0])
    tokens = ByToken(policy, reference if cls.needs_reference else None, torch.tensor([0, 1]), 2)
    response = ResponseLogps(
        policy, torch.ones(2), reference if cls.needs_reference else None, tokens if cls.needs_tokens else None
    )
    numbers = {name: torch.tensor([0.5, 0.2]) for name in cls.numbers}
    objective = cls()
    batch = objective.batch({"response": response}, StepInputs(torch.ones(2), numbers))
    assert torch.isfinite(objective.loss(batch)).all()
    for value in objective.metrics(batch).values():
        values, weights = value if isinstance(value, tuple) else (value, batch.weight)
        assert values.shape == weights.shape and torch.isfinite(values).all()


def test_responses_that_have_become_unlikely_are_warned_of() -> None:
    assert "the mean importance ratio is 0.15 (clip_eps=0.9)" in AdvantageLoL().warnings({}, {"ratio": 0.15})[0]
    assert AdvantageLoL().warnings({}, {"ratio": 1.9}) == AdvantageLoL().warnings({}, {}) == []
    assert AdvantageLoL(clip_eps=None).warnings({}, {"ratio": 0.01}) == []


@pytest.mark.parametrize("cls", [AdvantageLoL, RewardLoL, RewardGOLD, WeightedBC], ids=lambda cls: cls.name)
def test_likelier_good_responses_are_of_higher_quality_even_where_their_loss_is_higher(cls: Any) -> None:
    def quality(logp: float) -> tuple[float, float]:
        tokens = ByToken(torch.tensor([logp]), torch.tensor([-2.0]), torch.tensor([0]), 1)
        response = ResponseLogps(torch.tensor([logp]), torch.ones(1), torch.tensor([-2.0]), tokens)
        numbers = {"reward": torch.tensor([0.5]), "advantage": torch.tensor([0.3])}
        batch = cls().batch({"response": response}, StepInputs(torch.ones(1), numbers))
        means = {name: value.item() for name, value in cls().metrics(batch).items() if not isinstance(value, tuple)}
        return cls().quality({**means, "loss": cls().loss(batch).item()}), cls().loss(batch).item()

    before, after = quality(-2.0), quality(-1.2)
    assert after[0] > before[0]
    assert (after[1] > before[1]) == (cls is not WeightedBC)


# ------------------------------------------------------------------------------------------------------------- rewards


def prepared(objective: ScoredObjective, rows: Any, policy: Policy, **more: Any) -> Prepared:
    data = rows if isinstance(rows, Dataset) else Dataset(tuple(rows))
    return objective.prepare(data, policy, seed=0, **more)


def test_several_rewards_are_summed_with_weights_in_the_first_row_s_order(small_policy: Policy) -> None:
    rows = [
        Scored("q", "a", rewards={"fluency": 0.5, "safety": 1.0}),
        Scored("q", "b", rewards={"safety": 0.2, "fluency": 1}),
    ]
    found = prepared(WeightedBC(reward_weights=(1.0, 2.0)), rows, small_policy)
    assert [row.reward for row in found.dataset.rows] == pytest.approx([2.5, 1.4])
    assert found.facts["reward"]["formula"] == "R = fluency + 2 * safety"


def test_the_sigmoid_is_of_each_reward_before_the_sum() -> None:
    rule = reward_rule([Scored("q", "a", rewards={"a": 0.0, "b": 0.0})], weights=(1, 3), transform="sigmoid")
    assert rule.total([0.0, 1000.0]) == pytest.approx(3.5)
    assert rule.total([0.0, -1000.0]) == pytest.approx(0.5)
    assert (rule.low, rule.high) == (0, 4)


def test_weights_of_another_length(small_policy: Policy) -> None:
    rows = [Scored("q", "a", rewards={"fluency": 0.5, "safety": 1.0})]
    with pytest.raises(OptionError, match=r"has 3 weights, the rows have 2 rewards \(fluency, safety\)"):
        prepared(WeightedBC(reward_weights=(1.0, 1.0, 1.0)), rows, small_policy)
    with pytest.raises(OptionError, match=r"has 2 weights, the rows have 1 rewards \(reward\)"):
        prepared(WeightedBC(reward_weights=(1.0, 1.0)), [Scored("q", "a", 0.5)], small_policy)


@pytest.mark.parametrize("cls", [WeightedBC, AdvantageLoL, FilteredNLL], ids=lambda cls: cls.name)
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (Scored("q", "b", None), "missing; expected a number"),
        (Scored("q", "b", float("nan")), "expected a finite number; found nan"),
        (Scored("q", "b", 0.5, where=Where("scored.jsonl", 7)), ""),
    ],
)
def test_a_bad_reward_names_its_row(cls: Any, bad: Scored, message: str, small_policy: Policy) -> None:
    objective = cls(reward=("length",)) if cls is AdvantageLoL else cls()
    rows = [Scored("q", "a", 0.5), bad]
    with pytest.raises(DataError) as found:
        prepared(objective, rows, small_policy)
    if message:
        assert f"row 2: field 'reward': {message}" in str(found.value)
    else:
        assert "all 2 responses have the reward 0.5: no positive advantage" in str(found.value)


def test_a_missing_reward_of_several_names_file_and_line(small_policy: Policy) -> None:
    rows = [
        Scored("q", "a", rewards={"x": 0.1, "y": 0.5}),
        Scored("q", "b", rewards={"x": 0.5}, where=Where("scored.jsonl", 7)),
    ]
    with pytest.raises(DataError, match=r"^scored.jsonl:7: field 'rewards.y': missing"):
        prepared(WeightedBC(), rows, small_policy)


def test_rewards_out_of_range_say_how_to_give_the_range(small_policy: Policy) -> None:
    rows = [Scored("q", "a", 0.5), Scored("q", "b", 3.2)]
    with pytest.raises(DataError, match=r"row 2: .*reward 3.2 is out of range: expected 0 to 1; .*--reward-range"):
        prepared(WeightedBC(), rows, small_policy)
    assert prepared(WeightedBC(reward_range=(0.0, 4.0)), rows, small_policy).dataset.rows[1].reward == 3.2
    assert prepared(FilteredNLL(), rows, small_policy).facts["kept"] == 1  # only compares


def test_rewards_below_zero_cannot_weight_a_likelihood(small_policy: Policy) -> None:
    rows = [Scored("q", "a", 0.5), Scored("q", "b", -0.2)]
    with pytest.raises(OptionError, match="push likelihoods down without bound"):
        prepared(WeightedBC(reward_range=(-1.0, 1.0)), rows, small_policy)


def test_the_filter_keeps_the_best_rows_of_all(small_policy: Policy) -> None:
    rows = [Scored("q", letter, reward) for letter, reward in zip("abcde", (0.1, 0.9, 0.4, 0.9, 0.2))]
    found = prepared(FilteredNLL(keep_share=0.6), rows, small_policy)
    assert [row.response for row in found.dataset.rows] == ["b", "c", "d"]
    assert found.facts["lowest_kept_reward"] == 0.4 and "kept 3 of 5 rows" in found.notes[0]


# ---------------------------------------------------------------------------------------------------------- advantages


@every_advantage
def test_advantages_are_rewards_minus_the_fitted_value(
    cls: Any, rows: Dataset[Scored], reward: str, small_policy: Policy, tmp_path: Path
) -> None:
    objective = cls(reward=(reward,), value_prompts="0.3", value_max_new_tokens=6)
    found = prepared(objective, rows, small_policy)
    assert found.save is not None
    found.save(tmp_path)
    head = ValueHead.load(tmp_path / "value_head")
    assert (head.options.low, head.options.high) == (0, 1)
    kept: Any = found.dataset.rows
    values = found.objective.value.of(small_policy, [row.prompt for row in kept])
    assert [row.advantage for row in kept] == pytest.approx([row.reward - v for row, v in zip(kept, values)])
    assert all(row.advantage > 0 for row in kept)
    assert found.facts["kept"] == len(kept) < found.facts["rows"]
    assert found.facts["positive_share"] == len(kept) / found.facts["rows"]
    assert list(found.facts["advantage_percentiles"].values()) == sorted(found.facts["advantage_percentiles"].values())
    json.dumps(found.facts)
    assert found.facts["value"]["mse"] == min(found.facts["value"]["mse_by_epoch"])
    assert any("beat the reference's value and are kept" in note for note in found.notes)


def test_the_value_s_prompts_are_not_trained_on(rows: Dataset[Scored], reward: str, small_policy: Policy) -> None:
    objective = AdvantageLoL(reward=(reward,), value_prompts="0.3", value_max_new_tokens=4)
    found = prepared(objective, rows, small_policy)
    assert found.facts["rows"] + 0.3 * len(rows) == pytest.approx(len(rows), abs=6)
    trained = {row.prompt for row in found.dataset.rows}
    assert found.facts["value"]["prompts"] <= len({row.prompt for row in rows.rows}) - len(trained)


def test_the_value_s_prompts_may_come_from_a_file(
    rows: Dataset[Scored], reward: str, small_policy: Policy, tmp_path: Path
) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(f'{{"prompt": "another question {i % 3}"}}\n' for i in range(6)))
    found = prepared(AdvantageLoL(reward=(reward,), value_prompts=str(file)), rows, small_policy)
    assert found.facts["rows"] == len(rows) and found.facts["value"]["prompts"] == 3


def test_stored_answers_take_the_place_of_generating(
    rows: Dataset[Scored], small_policy: Policy, tmp_path: Path
) -> None:
    found = prepared(AdvantageLoL(value_data=stored(tmp_path / "answers.jsonl", 0.2)), rows, small_policy)
    assert found.facts["value"]["mean_reward"] == pytest.approx(0.2)
    assert all(row.advantage == pytest.approx(row.reward - 0.2, abs=1e-3) for row in found.dataset.rows)
    assert len(found.dataset) == sum(share_of_e(str(row.response)) > 0.2 for row in ROWS)


def test_without_anything_to_score_by_there_are_two_ways_out(rows: Dataset[Scored], small_policy: Policy) -> None:
    with pytest.raises(OptionError, match=r"--reward NAME.*--value-data FILE"):
        prepared(AdvantageLoL(), rows, small_policy)


def test_rewards_of_another_scale_are_noted(rows: Dataset[Scored], reward: str, small_policy: Policy) -> None:
    higher = rows.with_rows([dataclasses.replace(row, reward=row.reward + 0.3) for row in rows.rows])
    objective = AdvantageLoL(reward=(reward,), value_max_new_tokens=4)
    notes = prepared(objective, higher, small_policy).notes
    assert any("by 0.3 on average, with an offset of +0.3" in note for note in notes)
    assert not any("on average, with" in note for note in prepared(objective, rows, small_policy).notes)


def test_as_many_reward_functions_as_rewards(small_policy: Policy) -> None:
    rows = [Scored(f"q{i}", "a", rewards={"x": 0.1 * i, "y": 0.5}) for i in range(5)]
    with pytest.raises(OptionError, match=r"names 3 rewards, the rows have 2 \(x, y\): expected one each"):
        prepared(AdvantageLoL(reward=("length", "lexicon", "sentiment")), rows, small_policy)


def test_answers_out_of_range_name_the_reward(rows: Dataset[Scored], small_policy: Policy, tmp_path: Path) -> None:
    (tmp_path / "five.py").write_text("def five(prompt, response):\n    return 5\n")
    objective = AdvantageLoL(reward=(f"{tmp_path / 'five.py'}:five",), value_max_new_tokens=8)
    with pytest.raises(DataError, match=r"value: .*five gives an answer of the reference 5, outside .* 0 to 1"):
        prepared(objective, rows, small_policy)


def test_held_out_rows_get_the_training_rows_value(rows: Dataset[Scored], small_policy: Policy, tmp_path: Path) -> None:
    first = prepared(AdvantageLoL(value_data=stored(tmp_path / "answers.jsonl", 0.2)), rows, small_policy)
    held_out = [Scored("question 1", " eeee", 0.8), Scored("question 1", " x", 0.0)]
    second = prepared(first.objective, held_out, small_policy, held_out=True)  # type: ignore[arg-type]
    assert [row.response for row in second.dataset.rows] == [" eeee"]
    assert second.dataset.rows[0].advantage == pytest.approx(0.6, abs=1e-3)
    assert second.objective is first.objective and not second.facts
    with pytest.raises(OptionError, match="prepare the training rows before"):
        prepared(AdvantageLoL(), held_out, small_policy, held_out=True)


def test_without_the_filter_negative_advantages_stay(
    rows: Dataset[Scored], small_policy: Policy, tmp_path: Path
) -> None:
    objective = AdvantageLoL(
        value_data=stored(tmp_path / "answers.jsonl", 0.2), filter_negative=False, sampling_strategy="shuffle"
    )
    found = prepared(objective, rows, small_policy)
    assert len(found.dataset) == len(rows)
    assert min(row.advantage for row in found.dataset.rows) == pytest.approx(-0.2, abs=0.1)
    response = ResponseLogps(torch.tensor([-1.0]), torch.ones(1), torch.tensor([-1.0]))
    numbers = {"reward": torch.tensor([0.1]), "advantage": torch.tensor([-0.5])}
    batch = objective.batch({"response": response}, StepInputs(torch.ones(1), numbers))
    assert objective.loss(batch).item() == -0.5


def test_the_penalty_s_variant_counts_rows_whose_likelihood_it_lowers(
    rows: Dataset[Scored], small_policy: Policy, tmp_path: Path
) -> None:
    found = prepared(
        AdvantageLoLKL(kl_beta=0.5, value_data=stored(tmp_path / "answers.jsonl", 0.2)), rows, small_policy
    )
    assert any(f"{len(found.dataset)} of them have an advantage below kl_beta=0.5" in note for note in found.notes)


def test_a_value_that_explains_nothing_is_warned_of(
    rows: Dataset[Scored], small_policy: Policy, tmp_path: Path
) -> None:
    more = [
        {"prompt": "question 1", "response": " b", "reward": 0.1},
        {"prompt": "question 1", "response": " c", "reward": 0.3},
    ]
    file = stored(tmp_path / "answers.jsonl", 0.2, *more)
    found = prepared(AdvantageLoL(value_data=file), rows, small_policy)
    assert any(note.startswith("warning: the value head is no better than a constant") for note in found.notes)


def test_preparing_twice_gives_the_same_and_leaves_the_policy_alone(
    rows: Dataset[Scored], reward: str, small_policy: Policy
) -> None:
    before = small_policy.content_hash()
    objective = AdvantageLoL(reward=(reward,), value_max_new_tokens=4, value_generations=2)
    first, second = (prepared(objective, rows, small_policy) for _ in range(2))
    assert first.dataset.rows == second.dataset.rows and first.facts == second.facts
    assert small_policy.content_hash() == before and objective.value is None


def test_with_fresh_adapters_the_value_is_that_of_the_weights_beneath(
    rows: Dataset[Scored], reward: str, small_policy: Policy
) -> None:
    objective = AdvantageLoL(reward=(reward,), value_max_new_tokens=4)
    plain = prepared(objective, rows, small_policy)
    adapted = prepared(objective, rows, small_policy.with_lora(LoraOptions(rank=2)))
    expected = [row.advantage for row in plain.dataset.rows]
    assert [row.advantage for row in adapted.dataset.rows] == pytest.approx(expected, abs=1e-5)


# ------------------------------------------------------------------------------------------------------------ sampling


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (AdvantageLoL(), [0.4, 0.1]),
        (AdvantageLoL(sampling_strategy="uniform_positive"), [1.0, 1.0]),
        (AdvantageLoL(sampling_strategy="shuffle"), None),
        (RewardLoL(), [0.9, 0.6]),
    ],
)
def test_rows_are_drawn_by_their_credit(
    objective: PrioritySampled, expected: list[float] | None, small_policy: Policy
) -> None:
    rows = Dataset((Scored("q", "a", 0.9, advantage=0.4), Scored("q", "b", 0.6, advantage=0.1)))
    items: Items = tokenise(rows, small_policy, objective.roles, numbers=objective.numbers)
    weights = objective.sampling(items)
    assert (None if weights is None else weights.tolist()) == (None if expected is None else pytest.approx(expected))


def test_training_keeps_the_value_head_beside_the_model_and_says_what_was_kept(
    rows: Dataset[Scored], reward: str, small_policy: Policy, tmp_path: Path
) -> None:
    options = TrainOptions(steps=3, batch_size=4, learning_rate=1e-3, seed=0)
    objective = AdvantageLoL(reward=(reward,), value_max_new_tokens=4)
    training, held_out = rows.split(0.3)
    result = train(small_policy, objective, training, options, held_out=held_out, folder=tmp_path)
    assert ValueHead.load(tmp_path / "value_head").options.high == 1
    assert result.training_rows == result.preparation["kept"]
    assert result.final["advantage"] > 0 and {"ratio", "clipped", "reward"} <= result.final.keys()
    assert result.held_out["advantage"] > 0


def test_the_first_step_is_weighted_imitation(rows: Dataset[Scored], small_policy: Policy, tmp_path: Path) -> None:
    options = TrainOptions(steps=1, batch_size=40, micro_batch=8, learning_rate=1e-9, select="last")
    answers = stored(tmp_path / "answers.jsonl", 0.2)
    losses = [
        train(small_policy, cls(value_data=answers, sampling_strategy="shuffle"), rows, options).final["loss"]
        for cls in (AdvantageLoL, AdvantageLoLSequence, AdvantageLoLRefFree)
    ]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-4)


def test_baselines_draw_every_row_once(small_policy: Policy) -> None:
    rows = Dataset((Scored("q", "a", 0.9), Scored("q", "b", 0.6)))
    for objective in (WeightedBC(), RewardGOLD(), FilteredNLL()):
        assert objective.sampling(tokenise(rows, small_policy, objective.roles, numbers=objective.numbers)) is None
