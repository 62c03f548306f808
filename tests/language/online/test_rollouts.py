"""Rollouts: flat tensors of prompts, answers and tokens that stay together whatever is picked."""

from __future__ import annotations

import torch

from paperworks.language.online.rollouts import Rollouts


def test_sums_and_counts_are_by_answer(four: Rollouts) -> None:
    assert four.counts.tolist() == [1, 2, 3, 1]
    torch.testing.assert_close(four.summed(four.logps), torch.tensor([-0.1, -0.5, -1.5, -0.7]))
    assert four.last.tolist() == [True, False, True, False, False, True, True]
    assert four.members() == [[0, 1], [2, 3]]


def test_token_values_of_some_answers_come_in_the_order_asked_for(four: Rollouts) -> None:
    torch.testing.assert_close(four.of(four.logps, [3, 1]), torch.tensor([-0.7, -0.2, -0.3]))
    assert len(four.of(four.logps, [])) == 0


def test_a_selection_is_a_rollout_of_its_own(four: Rollouts) -> None:
    full = four.replace(reference=2 * four.logps, values=3 * four.logps, extra={"other": 4 * four.logps})
    some = full.select([3, 1, 1])
    assert some.ids == [(7,), (2, 3), (2, 3)] and some.texts == ["7", "2-3", "2-3"]
    assert some.group.tolist() == [1, 0, 0] and some.rewards.tolist() == [-1, 3, 3]
    assert some.response.tolist() == [0, 1, 1, 2, 2] and some.members() == [[1, 2], [0]]
    wanted = torch.tensor([-0.7, -0.2, -0.3, -0.2, -0.3])
    torch.testing.assert_close(some.logps, wanted)
    assert some.reference is not None and some.values is not None
    torch.testing.assert_close(some.reference, 2 * wanted)
    torch.testing.assert_close(some.values, 3 * wanted)
    torch.testing.assert_close(some.extra["other"], 4 * wanted)
    torch.testing.assert_close(some.log_ratio, -wanted)


def test_every_prompt_stays_in_a_selection(four: Rollouts) -> None:
    some = four.select([0])
    assert len(some.prompts) == 2 and some.members() == [[0], []]
    assert len(four.select([])) == 0


def test_the_policys_own_answers(four: Rollouts) -> None:
    mixed = four.replace(own=torch.tensor([True, False, False, True]))
    assert mixed.of_policy().ids == [(1,), (7,)]
    assert four.of_policy() is four  # nothing said: all are its own
    foreign = four.replace(own=torch.zeros(4, dtype=torch.bool))
    assert foreign.of_policy() is foreign
