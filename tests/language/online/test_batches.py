"""Rollouts become rows: groups with credit, labelled pairs, best answers; what teaches nothing is left out and counted."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from paperworks.language.online.batches import best, candidate_pairs, groups, joined, judged, pairs
from paperworks.language.online.judges import RewardJudge
from paperworks.language.online.rollouts import Rollouts
from paperworks.language.rewards.reward import CheckedReward

Make = Callable[..., Rollouts]
NEVER = CheckedReward("never asked", lambda prompts, responses: 1 / 0)


# ----------------------------------------------------------------------------------------------------------------- groups


def test_a_group_is_a_row_with_all_answers_and_their_credit(four: Rollouts) -> None:
    batch = groups(four.replace(reference=four.logps - 1), {"advantage": 10 * four.logps}, with_reference=True)
    first, second = batch.items.items
    assert first.responses == {"response": ((1,), (2, 3))} and second.prompt == (101,)
    assert second.response_numbers["reward"]["response"] == (2.0, -1.0)
    torch.testing.assert_close(second.token_numbers["advantage"]["response"], torch.tensor([-4.0, -5.0, -6.0, -7.0]))
    found = batch.reference.tokens["response"][0]
    assert found is not None
    torch.testing.assert_close(found, torch.tensor([-1.1, -1.2, -1.3]))


def test_a_prompt_without_answers_gives_no_row(four: Rollouts) -> None:
    assert len(groups(four.select([2]), {}).items) == 1


# ------------------------------------------------------------------------------------------------------------------ pairs


def test_soft_pairs_keep_the_judges_probability_for_the_likelier_winner(four: Rollouts) -> None:
    items = pairs(four, [(0, 1), (2, 3)], [0.3, 0.9]).items.items
    assert [item.responses["chosen"] for item in items] == [((2, 3),), ((4, 5, 6),)]
    assert [item.numbers["probability"] for item in items] == [pytest.approx(0.7), pytest.approx(0.9)]
    assert (items[0].numbers["chosen_reward"], items[0].numbers["rejected_reward"]) == (3.0, 1.0)


def test_hard_labels_are_drawn_from_the_probability(four: Rollouts) -> None:
    many = 2000
    batch = pairs(four, [(0, 1)] * many, [0.3] * many, soft=False)
    first = sum(item.responses["chosen"] == ((1,),) for item in batch.items.items)
    assert first / many == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / many))
    assert all(math.isnan(item.numbers["probability"]) for item in batch.items.items)


def test_a_tie_is_decided_by_a_coin(four: Rollouts) -> None:
    batch = pairs(four, [(0, 1)] * 400, [0.5] * 400)
    first = sum(item.responses["chosen"] == ((1,),) for item in batch.items.items)
    assert 140 < first < 260
    assert {item.numbers["probability"] for item in batch.items.items} == {0.5}


def test_labels_are_a_function_of_the_seed(four: Rollouts) -> None:
    def chosen(seed: int) -> list[object]:
        batch = pairs(four, [(0, 1)] * 50, [0.5] * 50, seed=(seed,), soft=False)
        return [item.responses["chosen"] for item in batch.items.items]

    assert chosen(1) == chosen(1) != chosen(2)


def test_the_same_answer_twice_is_left_out_and_counted(make_rollouts: Make) -> None:
    rollouts = make_rollouts([[1, 2], [1, 2], [3]], [0, 0, 0], [1.0, 1.0, 2.0])
    batch = pairs(rollouts, [(0, 1), (0, 2)], [0.5, 0.2])
    assert len(batch.items) == 1 and batch.left_out == {"same_answer": 1}
    assert pairs(rollouts, [(0, 2)], [0.2]).left_out == {}


@pytest.mark.parametrize(
    ("written", "probability", "wanted"),
    [([False, True], 0.1, 1.0), ([False, True], 0.9, 0.0), ([True, False], 0.9, 1.0), ([True, True], 0.9, math.nan)],
)
def test_the_reference_s_answer_is_marked(
    written: list[bool], probability: float, wanted: float, make_rollouts: Make
) -> None:
    """1 where the chosen answer is the fixed sampler's, 0 where the rejected one is, unknown where both are."""
    rollouts = make_rollouts([[1], [2]], [0, 0], from_reference=torch.tensor(written))
    (item,) = pairs(rollouts, [(0, 1)], [probability]).items.items
    assert item.numbers["explored"] == pytest.approx(wanted, nan_ok=True)


def test_reference_scores_follow_their_answers(four: Rollouts) -> None:
    batch = pairs(four.replace(reference=four.logps), [(2, 3)], [0.2])
    chosen, rejected = batch.reference.tokens["chosen"][0], batch.reference.tokens["rejected"][0]
    assert chosen is not None and rejected is not None
    torch.testing.assert_close(chosen, torch.tensor([-0.7]))
    torch.testing.assert_close(rejected, torch.tensor([-0.4, -0.5, -0.6]))


# ------------------------------------------------------------------------------------------------------------- candidates


@pytest.fixture
def six(make_rollouts: Make) -> Rollouts:
    return make_rollouts([[1], [2], [3], [4], [5], [6]], [0, 0, 0, 1, 1, 2], [1.0, 3.0, 2.0, 4.0, 4.0, 5.0])


def test_candidates_by_rule(six: Rollouts) -> None:
    """The second prompt's answers are worth the same, the third prompt has one answer."""
    assert candidate_pairs(six, "best-worst") == ([(1, 0)], 2)
    assert candidate_pairs(six, "first-two") == ([(0, 1), (3, 4)], 1)
    assert candidate_pairs(six, "all") == ([(0, 1), (0, 2), (1, 2), (3, 4)], 1)


def test_without_rewards_best_and_worst_are_not_known_and_all_are_compared(six: Rollouts) -> None:
    unscored = six.replace(rewards=torch.zeros(0))
    assert candidate_pairs(unscored, "best-worst") == candidate_pairs(six, "all")


def test_known_rewards_are_not_asked_for_again(six: Rollouts) -> None:
    assert judged(six, [(1, 0)], RewardJudge(NEVER, slope=math.log(3) / 2)) == [pytest.approx(0.75)]


def test_a_judge_sees_prompts_and_both_answers(six: Rollouts) -> None:
    class First:
        name = "first"

        def __call__(self, prompts: object, firsts: object, seconds: object) -> list[float]:
            self.seen = (prompts, firsts, seconds)
            return [1.0]

    judge = First()
    assert judged(six, [(3, 4)], judge) == [1.0]
    assert judge.seen == (["prompt 1"], ["4"], ["5"])
    assert judged(six, [], judge) == []


def test_the_best_answer_is_the_first_of_the_highest(six: Rollouts) -> None:
    assert best(six) == [1, 3, 5]


def test_iterations_are_joined_in_order(four: Rollouts) -> None:
    scored = four.replace(reference=four.logps)
    one, two = pairs(scored, [(0, 1)], [0.2]), pairs(scored, [(2, 3)], [0.9])
    both = joined([one, two])
    assert [item.prompt for item in both.items.items] == [(100,), (101,)]
    assert len(both.reference.tokens["chosen"]) == 2 and both.items.responses == 4
