"""Judges: probabilities that the first of two answers is better."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from paperworks.core.errors import OptionError, RewardError
from paperworks.language.online.judges import FunctionJudge, RewardJudge, load_judge
from paperworks.language.rewards.reward import CheckedReward

LENGTH = CheckedReward("length", lambda prompts, responses: [float(len(text)) for text in responses])


def test_a_reward_judges_by_bradley_terry() -> None:
    judge = RewardJudge(LENGTH, slope=0.5)
    assert judge(["?", "?"], ["aaaa", "a"], ["aa", "a"]) == [pytest.approx(1 / (1 + math.exp(-1))), 0.5]
    assert judge.name == "preference by length"


def test_large_differences_do_not_overflow() -> None:
    judge = RewardJudge(LENGTH)
    assert (judge.of(2000.0, 0.0), judge.of(0.0, 2000.0)) == (1.0, 0.0)


def test_an_infinite_slope_says_who_is_higher() -> None:
    judge = RewardJudge(LENGTH, slope=math.inf)
    assert [judge.of(2, 1), judge.of(1, 2), judge.of(1, 1)] == [1.0, 0.0, 0.5]


def biased(prompts: list[str], firsts: list[str], seconds: list[str]) -> list[float]:
    """Prefers what is shown first, by 0.2."""
    return [0.7 if len(a) >= len(b) else 0.5 for a, b in zip(firsts, seconds, strict=True)]


def test_a_bias_to_the_first_is_averaged_out() -> None:
    judge = FunctionJudge("biased", biased)
    forward, backward = judge(["?"], ["aa"], ["a"]), judge(["?"], ["a"], ["aa"])
    assert forward == [pytest.approx(0.6)] and backward == [pytest.approx(0.4)]


def test_orders_that_disagree_are_an_error_unless_averaged() -> None:
    with pytest.raises(RewardError, match=r"off 1 by 0\.200 on average"):
        FunctionJudge("biased", biased, symmetrise=False)(["?"], ["aa"], ["a"])


@pytest.mark.parametrize(
    ("answer", "message"),
    [([1.2], "expected a probability in .0, 1.; got 1.2"), ([0.5, 0.5], "2"), ([math.nan], "nan")],
)
def test_what_is_no_probability_is_an_error(answer: list[float], message: str) -> None:
    with pytest.raises(RewardError, match=message):
        FunctionJudge("odd", lambda prompts, firsts, seconds: answer)(["?"], ["a"], ["b"])


def test_a_judge_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def longer(prompts, a, b):\n    return [float(len(x) > len(y)) for x, y in zip(a, b)]\n")
    judge = load_judge(f"{file}:longer")
    assert judge(["?", "?"], ["aa", "a"], ["a", "aa"]) == [1.0, 0.0]


def test_a_judge_that_cannot_be_had_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def broken(prompts, a, b):\n    raise ValueError('no')\n")
    with pytest.raises(OptionError, match=r"expected FILE.py:function"):
        load_judge("mine")
    with pytest.raises(RewardError, match="no such file"):
        load_judge("missing.py:f")
    with pytest.raises(RewardError, match="no function 'other'"):
        load_judge(f"{file}:other")
    with pytest.raises(RewardError, match=r"mine.py.*no"):
        load_judge(f"{file}:broken")(["?"], ["a"], ["b"])
