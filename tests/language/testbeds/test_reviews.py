from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperworks.core.errors import DataError, OptionError, RewardError
from paperworks.language.data.label_noise import flip_preferences
from paperworks.language.rewards.sentiment import sentiment
from paperworks.language.testbeds.reviews import (
    STYLES,
    clauses_in,
    generate_reviews,
    in_style,
    label_pairs,
    load_sst2,
    penalised_outside,
    prompts,
)


def score_length(of_prompts: list[str], responses: list[str]) -> list[float]:
    return [float(len(response)) for response in responses]


def test_a_seed_decides_and_more_reviews_begin_with_the_same() -> None:
    assert generate_reviews(5, 3) == generate_reviews(20, 3)[:5]
    assert generate_reviews(20, 3) != generate_reviews(20, 4)


def test_reviews_are_continuations() -> None:
    for prompt, response in generate_reviews(50, 0):
        assert prompt in prompts("films")
        assert response.startswith(" ") and response.endswith(".")


def test_topics_share_no_prompt_and_vocabulary_is_small() -> None:
    assert not set(prompts("films")) & set(prompts("hotels"))
    texts = [
        prompt + response
        for topic in ("films", "hotels")
        for prompt, response in generate_reviews(1000, 0, topic=topic, clauses=(1, 5))
    ]
    assert len({word.strip(".,") for text in texts for word in text.split()}) <= 150


def test_sentiment_spreads_over_the_whole_range() -> None:
    pytest.importorskip("vaderSentiment")
    reviews = generate_reviews(1000, 1)
    scores = np.array(sentiment([r.prompt for r in reviews], [r.response for r in reviews]))
    low, middle_low, middle_high, high = np.quantile(scores, [0.01, 0.3, 0.7, 0.99])
    assert low < -0.85 and high > 0.85
    assert middle_low < -0.2 and middle_high > 0.2
    # a prompt alone is neutral: it must not leak the answer
    assert set(sentiment(list(prompts("films") + prompts("hotels")), list(prompts("films") + prompts("hotels")))) == {
        0.0
    }


def test_clause_counts_are_kept_and_give_lengths_that_vary() -> None:
    reviews = generate_reviews(300, 2, clauses=(1, 5))
    counts = {clauses_in(review.response) for review in reviews}
    assert counts == {1, 2, 3, 4, 5}
    lengths = [len(review.response.split()) for review in reviews]
    assert max(lengths) > 5 * min(lengths)


@pytest.mark.parametrize("style", STYLES)
def test_two_clauses_belong_to_exactly_their_style(style: str) -> None:
    for review in generate_reviews(100, 5, styles=[style], clauses=(2, 4)):
        assert [other for other in STYLES if in_style(review.response, other)] == [style]


@pytest.mark.parametrize(
    "text",
    ["", ".", " dull", " dull..", "dull.", " dull and the plot.", " dull and the plot was dull. dull.", " blue."],
)
def test_what_is_not_a_review_is_in_no_style(text: str) -> None:
    assert not any(in_style(text, style) for style in STYLES)
    assert clauses_in(text) == 0


@given(st.text(max_size=60))
def test_the_check_takes_any_text(text: str) -> None:
    assert clauses_in(text) >= 0


def test_hard_labels_choose_the_higher_reward_and_drop_identical_pairs() -> None:
    rows = label_pairs(["p"] * 3, [" aa", " a", " b"], [" a", " aa", " b"], score_length)
    assert [(row.prompt, row.chosen, row.rejected) for row in rows] == [("p", " aa", " a")] * 2


def test_bradley_terry_labels_have_its_probability() -> None:
    n = 4000
    rows = label_pairs(["p"] * n, [" aa"] * n, [" a"] * n, score_length, noise="bt", scale=1.5, seed=1)
    wins = sum(row.chosen == " aa" for row in rows) / n
    assert wins == pytest.approx(1 / (1 + np.exp(-1.5)), abs=0.02)


def test_ties_are_a_seeded_coin() -> None:
    rows = label_pairs(["p"] * 200, [" ab"] * 200, [" ba"] * 200, score_length, seed=0)
    assert 60 < sum(row.chosen == " ab" for row in rows) < 140
    assert rows == label_pairs(["p"] * 200, [" ab"] * 200, [" ba"] * 200, score_length, seed=0)


def test_a_length_bias_can_turn_a_label() -> None:
    def brief(of_prompts: list[str], responses: list[str]) -> list[float]:
        return [-float(len(response.split())) for response in responses]

    (row,) = label_pairs(["p"], [" dull."], [" dull and the plot was dull."], brief, length_bias=2.0)
    assert row.rejected == " dull."


def test_a_pair_keeps_its_label_whatever_its_neighbours_are() -> None:
    a, b = [" x", " y", " aa"], [" x", " z", " a"]
    kept = label_pairs(["p"] * 3, a, b, score_length, noise="bt", seed=7)
    changed = label_pairs(["p"] * 3, [" w", *a[1:]], b, score_length, noise="bt", seed=7)
    assert kept == changed[1:]


def test_labels_can_be_flipped_once_for_good() -> None:
    rows = label_pairs(["p"] * 500, [" aa"] * 500, [" a"] * 500, score_length)
    flipped = flip_preferences(rows, 0.3, seed=0)
    assert sum(row.chosen == " a" for row in flipped) / 500 == pytest.approx(0.3, abs=0.06)


def test_text_outside_the_style_is_penalised() -> None:
    reward = penalised_outside(score_length, "plain", penalty=2.0)
    inside, outside = " dull and the plot was dull.", " dull, and I hated the plot."
    assert reward(["p", "p"], [inside, outside]) == [len(inside), len(outside) - 2.0]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: prompts("film"), "did you mean 'films'"),
        (lambda: generate_reviews(1, 0, styles=["plane"]), "did you mean 'plain'"),
        (lambda: generate_reviews(1, 0, styles=[]), "at least one"),
        (lambda: generate_reviews(1, 0, clauses=(3, 2)), "clauses="),
        (lambda: label_pairs(["p"], ["a"], ["b"], score_length, noise="some"), "none or bt"),
        (lambda: label_pairs(["p"], ["a"], [], score_length), "as many of each"),
    ],
)
def test_wrong_options_are_named(call, says: str) -> None:
    with pytest.raises(OptionError, match=says):
        call()


def test_a_reward_that_is_not_a_number_is_an_error() -> None:
    with pytest.raises(RewardError):
        label_pairs(["p"], ["a"], ["b"], lambda of_prompts, responses: [float("nan")] * len(responses))


def test_real_sentences_take_the_same_shape(tmp_path: Path) -> None:
    file = tmp_path / "dev.tsv"
    file.write_text("it 's a charming journey .\t1\ntoo short .\t0\nunflinchingly bleak and desperate film\t0\n")
    reviews = load_sst2(file)
    assert reviews == [("it 's a charming", " journey ."), ("unflinchingly bleak and desperate", " film")]
    assert [review.response for review in load_sst2(file, label=0)] == [" film"]
    with pytest.raises(DataError, match="prompt_words=9"):
        load_sst2(file, prompt_words=9)
