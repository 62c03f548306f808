"""Training on scored groups and on pairs with roles that the rows lack, from rows to weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from paperworks.core.errors import DataError
from paperworks.language.data import Dataset, ScoredGroup, read
from paperworks.language.items import tokenise
from paperworks.language.objectives import DPO, CoPG, HyPO
from paperworks.language.policy import Policy
from paperworks.language.training import TrainOptions, train

GROUPS = Dataset(
    tuple(
        ScoredGroup(
            f"prompt {number}", (" good", " bad answer", " so so")[: 2 + number % 2], (1.0, 0.0, 0.4)[: 2 + number % 2]
        )
        for number in range(8)
    )
)
OPTIONS = TrainOptions(steps=3, batch_size=4, micro_batch=2, learning_rate=1e-2, select="last")


def weights(policy: Policy) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in policy.model.state_dict().items()}


def test_a_group_s_scores_stay_with_its_responses(small_policy: Policy) -> None:
    items = tokenise(GROUPS, small_policy, ("response",), response_numbers=("reward",))
    assert [len(item.responses["response"]) for item in items.items] == [2, 3] * 4
    assert items.items[1].response_numbers == {"reward": {"response": (1.0, 0.0, 0.4)}}


def test_copg_raises_the_better_responses(small_policy: Policy) -> None:
    options = TrainOptions(steps=20, batch_size=8, learning_rate=1e-2, select="last")
    result = train(small_policy, CoPG(beta=0.05), GROUPS, options, held_out=GROUPS)
    assert result.first["worth"] == pytest.approx(0, abs=1e-5)
    assert result.final["worth"] > 0.1
    assert result.final["agreement"] > 0.9


def test_copg_does_not_depend_on_micro_batches(small_policy: Policy) -> None:
    start, ends = weights(small_policy), []
    for micro_batch in (1, 4):
        small_policy.model.load_state_dict(start)
        options = TrainOptions(steps=2, batch_size=4, micro_batch=micro_batch, learning_rate=1e-3, select="last")
        train(small_policy, CoPG(), GROUPS, options)
        ends.append(weights(small_policy))
    assert all(torch.allclose(ends[0][name], ends[1][name], atol=1e-5) for name in start)
    assert any(not torch.equal(ends[0][name], start[name]) for name in start)


def test_hypo_without_lam_gives_dpo_s_weights(small_policy: Policy, pairs: Dataset[Any]) -> None:
    start, ends = weights(small_policy), []
    for objective in (DPO(beta=0.1), HyPO(beta=0.1, lam=0.0)):
        small_policy.model.load_state_dict(start)
        train(small_policy, objective, pairs, OPTIONS)
        ends.append(weights(small_policy))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in start)
    assert any(not torch.equal(ends[0][name], start[name]) for name in start)


# ----------------------------------------------------------------------------------------------------------- preparing


def prepared(objective: CoPG, rows: Dataset[Any], policy: Policy) -> Any:
    return objective.prepare(rows, policy, seed=0)


def test_equal_scores_have_nothing_to_teach(small_policy: Policy) -> None:
    rows = Dataset((ScoredGroup("p", ("a", "b"), (0.5, 0.5)), ScoredGroup("q", ("c", "d"), (0.5, 0.5))))
    with pytest.raises(DataError, match=r"nothing to learn: reward has no variance, all 4 scores are 0\.5"):
        prepared(CoPG(), rows, small_policy)


def test_scores_far_beyond_beta_are_said(small_policy: Policy) -> None:
    rows = Dataset((ScoredGroup("p", ("a", "b"), (0.0, 80.0)),))
    (note,) = prepared(CoPG(beta=0.1), rows, small_policy).notes
    assert note.startswith("scores have the deviation 40, beta is 0.1: 400 times as much")
    assert prepared(CoPG(beta=1.0), rows, small_policy).notes == ()


def test_scores_are_normed_by_the_deviation_of_the_file(small_policy: Policy) -> None:
    rows = Dataset((ScoredGroup("p", ("a", "b"), (0.0, 80.0)), ScoredGroup("q", ("a", "b"), (0.0, 80.0))))
    found = prepared(CoPG(beta=0.1, reward_norm="global-std"), rows, small_policy)
    assert [row.scores for row in found.dataset.rows] == [(0.0, 2.0)] * 2
    assert found.notes == ()


def test_random_pairs_are_rows_of_their_own_and_weigh_as_much_together(small_policy: Policy) -> None:
    rows = Dataset(
        (ScoredGroup("p", ("a", "b", "c", "d"), (0.0, 1.0, 2.0, 3.0)), ScoredGroup("q", ("a", "b"), (0.0, 1.0)))
    )
    found = prepared(CoPG(pairs="random:3"), rows, small_policy).dataset.rows
    assert len({row.responses for row in found[:3]}) == 3 and found[3].responses == ("a", "b") and len(found) == 4
    assert [row.weight for row in found] == pytest.approx([2 / 3] * 3 + [1])
    assert all(row.scores == tuple("abcd".index(text) for text in row.responses) for row in found)
    assert found == prepared(CoPG(pairs="random:3"), rows, small_policy).dataset.rows


# ------------------------------------------------------------------------------------------------------------- reading


def written(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


def test_groups_are_read_with_either_name(tmp_path: Path) -> None:
    rows = [
        {"prompt": "p", "completions": [" a", " b"], "scores": [1, 0.5]},
        {"prompt": [{"role": "user", "content": "q"}], "responses": ["c", "d", "e"], "scores": [1, 0, -2]},
    ]
    found = read(written(tmp_path / "groups.jsonl", rows[0]), ScoredGroup)
    assert found[0].responses == (" a", " b") and found[0].scores == (1.0, 0.5)
    chat = read(written(tmp_path / "chat.jsonl", rows[1]), "scored-group")
    assert chat[0].prompt == ({"role": "user", "content": "q"},) and chat[0].scores == (1.0, 0.0, -2.0)


def test_pairs_are_groups_scored_a_quarter_apart_from_nothing(tmp_path: Path) -> None:
    found = read(written(tmp_path / "pairs.jsonl", {"prompt": "p", "chosen": " a", "rejected": " b"}), ScoredGroup)
    assert found[0].responses == (" a", " b") and found[0].scores == (0.25, -0.25)
    assert found.report.converted_from == "preference"


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ({"completions": ["a"], "scores": [1]}, "expected 2 or more; found 1"),
        ({"completions": "a", "scores": [1]}, "expected 2 or more; found 1"),
        ({"completions": ["a", "b"], "scores": [1]}, "expected 2, one a response; found 1"),
        ({"completions": ["a", "b"], "scores": [1, float("nan")]}, "expected finite numbers; number 2 is not one"),
        ({"completions": ["a", "b"], "scores": [float("inf"), 1]}, "expected finite numbers; number 1 is not one"),
        ({"completions": ["a", "b"], "scores": "high"}, "expected a list of finite numbers"),
        ({"completions": ["a", "b"], "scores": [1, None]}, "expected finite numbers; number 2 is not one"),
        ({"completions": ["a", "  "], "scores": [1, 2]}, "response 2 is empty"),
        ({"completions": ["a", 3], "scores": [1, 2]}, "expected a list of strings"),
        ({"completions": ["a", "b"]}, "missing"),
    ],
)
def test_bad_groups_name_their_line(tmp_path: Path, row: dict[str, Any], line: str) -> None:
    good = {"prompt": "p", "completions": ["a", "b"], "scores": [1, 0]}
    with pytest.raises(DataError, match=line) as refused:
        read(written(tmp_path / "groups.jsonl", good, {"prompt": "q", **row}), ScoredGroup)
    assert "groups.jsonl:2" in str(refused.value)


def test_scored_dialogues_are_groups_too(tmp_path: Path) -> None:
    turns = ["<|prompter|>Who are you?", "<|assistant|>"]
    record = {"prefix": [turns, turns], "suffix": ["A model.", "You."], "reward": [1.5, -0.25]}
    (group,) = read(written(tmp_path / "hh.jsonl", record), ScoredGroup)
    assert group.prompt == ({"role": "user", "content": "Who are you?"},)
    assert (group.responses, group.scores) == (("A model.", "You."), (1.5, -0.25))
    other = {**record, "prefix": [turns, ["<|prompter|>Why?", "<|assistant|>"]]}
    with pytest.raises(DataError, match="expected the same turns before every answer"):
        read(written(tmp_path / "other.jsonl", other), ScoredGroup)
