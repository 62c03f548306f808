"""Completing lists: what counts of answers, the judge who prefers in circles, writers, and what a policy imitates."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from paperworks.language.testbeds import list_completion
from paperworks.language.testbeds.list_completion import (
    MEDIOCRE,
    PROMPT,
    STEPS,
    SYMBOLS,
    TEACHER,
    Traits,
    Writer,
    gold_reward,
    make_prompts,
    preference,
    traits,
    win_rates,
)

ASKED = torch.tensor([1, 2, 3, 4])


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def answer(*tokens: int) -> torch.Tensor:
    return torch.tensor([*tokens] + [0] * (STEPS - len(tokens)))


@pytest.mark.parametrize(
    ("tokens", "covered", "others", "repeats", "gold"),
    [
        ([1, 2, 3, 4], 4, 0, 0, 3.2),
        ([1, 1, 9], 1, 1, 1, -0.1),
        ([], 0, 0, 0, 0.0),
        ([9] * STEPS, 0, 1, STEPS - 1, -0.5 * (STEPS - 1) - 0.2 * STEPS),
    ],
)
def test_traits_and_gold_reward_by_hand(
    tokens: list[int], covered: int, others: int, repeats: int, gold: float
) -> None:
    found = traits(ASKED, answer(*tokens))
    assert (float(found.covered), float(found.others), float(found.repeats)) == (covered, others, repeats)
    assert float(found.tokens) == len(tokens)
    assert float(gold_reward(found)) == pytest.approx(gold)


def test_what_stands_behind_the_end_does_not_count() -> None:
    late = answer(1, 2)
    late[5] = 3
    assert float(traits(ASKED, late).covered) == 2


def test_the_judge_prefers_in_a_circle_and_in_either_order_alike() -> None:
    found = traits(
        ASKED.expand(3, -1), torch.stack([answer(1, 2, 3, 4, 9), answer(1, 2, 3), answer(11, 12, 13, 14)])
    ).stacked()
    matrix = preference(Traits.of(found[:, None]), Traits.of(found[None]))
    assert torch.allclose(matrix + matrix.T, torch.ones(3, 3), atol=1e-6)
    assert min(matrix[0, 1], matrix[1, 2], matrix[2, 0]) > 0.6


def test_a_policy_plays_even_with_itself_and_wins_are_complementary() -> None:
    first, second = torch.randint(0, 5, (2, 2, 30, 3), generator=drawn()).float()
    assert float(win_rates(first, first)) == pytest.approx(0.5, abs=1e-6)
    assert float(win_rates(first, second) + win_rates(second, first)) == pytest.approx(1.0, abs=1e-6)


def test_prompts_have_different_symbols() -> None:
    prompts = make_prompts(50, drawn())
    assert prompts.shape == (50, PROMPT)
    assert int(prompts.min()) >= 1 and int(prompts.max()) <= SYMBOLS
    assert all(len(set(row)) == PROMPT for row in prompts.tolist())


def test_a_perfect_writer_repeats_the_prompt_and_the_teacher_is_better_than_the_mediocre_one() -> None:
    prompts = make_prompts(400, drawn())
    assert torch.equal(Writer(1.0, 0, 0.0).written(prompts, drawn())[:, :PROMPT], prompts)
    good, poor = (traits(prompts, writer.written(prompts, drawn(1))) for writer in (TEACHER, MEDIOCRE))
    assert float(preference(good, poor).mean()) > 0.6
    assert float(good.covered.mean()) == pytest.approx(4 * TEACHER.covers, abs=0.1)
    assert float(poor.others.mean()) == pytest.approx(MEDIOCRE.others / 2, abs=0.2)


def test_a_seed_has_its_own_prompts_and_numbers_wherever_it_stands() -> None:
    prompts = list_completion.prompts_of([3, 4, 3], 5, "some", 1)
    assert torch.equal(prompts[0], prompts[2]) and not torch.equal(prompts[0], prompts[1])
    assert torch.equal(list_completion.prompts_of([4], 5, "some", 1)[0], prompts[1])
    numbers = list_completion.numbers_of([3, 4], 5, "some", 1)
    assert numbers.shape == (2, STEPS, 5)
    assert torch.equal(list_completion.numbers_of([4], 5, "some", 1)[0], numbers[1])


def test_nets_are_kept_in_files(tmp_path: Path) -> None:
    net = list_completion.imitator(0, steps=1)
    for place in range(2):
        list_completion.save_net(net, tmp_path / f"{place}.safetensors")
    both = list_completion.load_nets([tmp_path / "0.safetensors", tmp_path / "1.safetensors"])
    assert len(both) == 2
    assert torch.equal(both.parameters["head"][1], net.parameters["head"][0])
