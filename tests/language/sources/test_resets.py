"""Beginnings of logged responses: what is kept, cut, left out and refused."""

from __future__ import annotations

import pytest

from paperworks.core.errors import DataError, OptionError
from paperworks.language.sources.resets import ResetBank, ResetOptions, written_by_policy

END = 9


def bank(*pairs: tuple[str, list[int]], max_tokens: int | None = None) -> ResetBank:
    return ResetBank.of(pairs, end=END, max_tokens=max_tokens)


def test_what_follows_the_end_is_left_out_and_the_end_is_never_forced() -> None:
    prefixes = bank(("x", [1, 2, END, 5, 6])).draw(["x"] * 200).prefixes
    assert set(prefixes) == {(1,), (1, 2)}


def test_a_response_cut_at_the_limit_leaves_a_token_to_write() -> None:
    made = bank(("x", [1, 2, 3, 4, 5, END]), max_tokens=3)
    assert set(made.draw(["x"] * 200).prefixes) == {(1,), (1, 2)}
    assert made.cut == 1 and "1 responses were cut" in made.notes()[0]


def test_short_responses_are_left_out_and_counted() -> None:
    made = bank(("x", [END]), ("x", [1, END]), ("y", [END]))
    assert made.dropped == 2 and "x" in made and "y" not in made and len(made) == 1
    assert "2 responses of fewer than two tokens were left out" in made.notes()[0]
    with pytest.raises(DataError, match="none of 1 responses has two tokens or more"):
        bank(("x", [END]))


def test_a_share_of_rows_starts_at_the_prompt() -> None:
    made = bank(("x", [1, 2, 3, END]))
    drawn = made.draw(["x"] * 4000, share=0.25, seed=3)
    assert drawn.share == pytest.approx(0.25, abs=0.02) and drawn.mean_length == pytest.approx(2, abs=0.1)
    assert made.draw(["x"] * 50, seed=3, step=1) != made.draw(["x"] * 50, seed=3, step=2)
    assert made.draw(["x"] * 3, seed=3).prefixes == made.draw(["x"] * 50, seed=3).prefixes[:3]


def test_a_prompt_without_responses() -> None:
    made = bank(("x", [1, 2, END]))
    with pytest.raises(
        DataError, match="row 2: no reset response for its prompt 'y'; with share=1 every prompt needs one"
    ):
        made.draw(["x", "y"])
    drawn = made.draw(["x", "y"] * 500, share=0.999)
    assert not any(drawn.prefixes[1::2]) and drawn.unmatched > 490


def test_which_tokens_the_policy_wrote() -> None:
    assert written_by_policy([(1, 2), ()], [4, 2]).tolist() == [False, False, True, True, True, True]
    with pytest.raises(OptionError, match="response 1: 2 tokens with 2 forced; expected at least one written"):
        written_by_policy([(1, 2)], [2])


def test_options() -> None:
    with pytest.raises(OptionError, match=r"share=1\.5 is out of range"):
        ResetOptions(share=1.5)
    with pytest.raises(OptionError, match="source=rejected: expected chosen"):
        ResetOptions(source="rejected")  # type: ignore[arg-type]
