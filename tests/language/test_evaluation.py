"""Each measure equals its definition worked out by hand, and its interval counts prompts, not rows."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch

from paperworks.core.errors import DataError, ModelError, OptionError, RewardError
from paperworks.core.statistics import bootstrap_mean
from paperworks.language.data import Dataset, Demonstration, Preference
from paperworks.language.evaluation import (
    kl_to_reference,
    length_of_samples,
    perplexity,
    preference_accuracy,
    reward_of_samples,
    sample_report,
    score_rows,
)
from paperworks.language.logprobs import Tree
from paperworks.language.policy import LoraOptions, Policy
from paperworks.language.rewards import CheckedReward
from paperworks.language.sampling import sample
from paperworks.language.tiny import TinySpec, fresh_policy

PROMPTS = ["The film", "I thought the plot of the film was", "To us"]
LENGTH = CheckedReward("length", lambda prompts, responses: [len(response) for response in responses])


@pytest.fixture
def other(tokenizer: Any) -> Policy:
    """Another policy over the same tokens."""
    return fresh_policy(TinySpec(layers=2, width=32, heads=2, context=256, seed=5), tokenizer, name="other")


def logp(policy: Policy, prompt: str, response: str) -> tuple[float, int]:
    ids = policy.encode_response(response)
    return float(policy.token_logps([Tree(policy.encode_prompt(prompt), [ids])]).sums()), len(ids)


# ------------------------------------------------------------------------------------------------------------ given rows


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("with_reference", [False, True])
def test_accuracy_compares_scores(
    small_policy: Policy, other: Policy, pairs: Dataset[Preference], normalise: bool, with_reference: bool
) -> None:
    def score(prompt: Any, response: Any) -> float:
        value, tokens = logp(small_policy, prompt, response)
        if with_reference:
            value -= logp(other, prompt, response)[0]
        return value / tokens if normalise else value

    margins = [score(row.prompt, row.chosen) - score(row.prompt, row.rejected) for row in pairs]
    reference = other if with_reference else None
    scored = score_rows(small_policy, pairs, ("chosen", "rejected"), reference=reference)
    np.testing.assert_allclose(scored.margins(normalise=normalise).values, margins, atol=1e-4)
    found = preference_accuracy(small_policy, pairs, reference=reference, normalise=normalise)
    assert found.values == tuple(float(margin > 0) for margin in margins)
    assert found.interval.mean == pytest.approx(np.mean(found.values))
    assert 0 < found.interval.mean < 1
    assert found.interval.low <= found.interval.mean <= found.interval.high


def test_a_policy_cannot_be_told_from_its_reference(small_policy: Policy, pairs: Dataset[Preference]) -> None:
    found = preference_accuracy(small_policy, pairs, reference=small_policy.reference())
    assert set(found.values) == {0.5}
    adapted = small_policy.with_lora(LoraOptions(rank=2))  # fresh adapters change nothing
    assert preference_accuracy(adapted, pairs, reference=adapted.reference()).interval.mean == 0.5


def test_rows_of_one_prompt_count_as_one(small_policy: Policy, pairs: Dataset[Preference]) -> None:
    repeated = pairs.with_rows([*pairs.rows] * 3)
    once, thrice = preference_accuracy(small_policy, pairs), preference_accuracy(small_policy, repeated)
    assert len(thrice.values) == 3 * len(once.values)
    assert dataclasses.astuple(thrice.interval) == pytest.approx(dataclasses.astuple(once.interval))
    assert once.interval.n == len({row.prompt for row in pairs})


def test_perplexity_weighs_tokens_alike(small_policy: Policy) -> None:
    rows = [
        ("The film", " was dull."),
        ("The plot", " of the film was superb, and I loved the cast."),
        ("To us", " no"),
    ]
    dataset = Dataset(tuple(Demonstration(prompt, response) for prompt, response in rows))
    losses, counts = zip(
        *[(-value, tokens) for value, tokens in (logp(small_policy, *row) for row in rows)], strict=True
    )
    found = perplexity(small_policy, dataset)
    assert found.interval.mean == pytest.approx(math.exp(sum(losses) / sum(counts)), rel=1e-5)
    assert found.values == pytest.approx([math.exp(a / b) for a, b in zip(losses, counts, strict=True)], rel=1e-5)
    assert found.interval.low < found.interval.mean < found.interval.high
    backwards = perplexity(small_policy, dataset.with_rows(dataset.rows[::-1]))
    assert backwards.interval.mean == pytest.approx(found.interval.mean, rel=1e-6)


def test_perplexity_of_an_encoder_decoder(encoder_decoder: Policy) -> None:
    dataset = Dataset((Demonstration("The film", " was dull."),))
    value, tokens = logp(encoder_decoder, "The film", " was dull.")
    found = perplexity(encoder_decoder, dataset)
    assert found.interval.mean == pytest.approx(math.exp(-value / tokens), rel=1e-5)
    assert math.isnan(found.interval.low)  # one prompt has no interval


def test_cut_rows_are_counted_and_long_prompts_named(small_policy: Policy, pairs: Dataset[Preference]) -> None:
    scored = score_rows(small_policy, pairs, ("chosen", "rejected"), max_length=20)
    assert any("cut at max_length" in note for note in scored.items.notes())
    with pytest.raises(DataError, match=r"the prompt has \d+ tokens"):
        preference_accuracy(small_policy, pairs, max_length=4)
    with pytest.raises(DataError, match="0 rows left"):
        preference_accuracy(small_policy, pairs, max_length=2, long_prompts="skip")


def test_progress_ends_at_one(small_policy: Policy, other: Policy, pairs: Dataset[Preference]) -> None:
    for reference in (None, other):
        shares: list[float] = []
        score_rows(small_policy, pairs, ("chosen",), reference=reference, on_progress=shares.append)
        sample_report(small_policy, reference, PROMPTS, max_new_tokens=2, on_progress=shares.append)
        assert shares[-1] == pytest.approx(1.0)
        assert max(shares) <= 1 + 1e-9


def test_a_reference_with_other_tokens_is_refused(small_policy: Policy, pairs: Dataset[Preference]) -> None:
    stranger = copy.copy(small_policy)
    stranger.tokenizer = copy.deepcopy(small_policy.tokenizer)
    stranger.name = "stranger"
    assert (
        preference_accuracy(small_policy, pairs, reference=stranger).interval.mean == 0.5
    )  # the same tokens, another object
    stranger.tokenizer.add_tokens(["<new>"])
    with pytest.raises(ModelError, match="stranger cannot be a reference of tiny: their tokenizers differ"):
        preference_accuracy(small_policy, pairs, reference=stranger)
    with pytest.raises(ModelError, match="their tokenizers differ"):
        sample_report(small_policy, stranger, PROMPTS)


def test_an_encoder_decoder_is_no_reference_of_a_decoder(small_policy: Policy, encoder_decoder: Policy) -> None:
    reference = copy.copy(encoder_decoder)
    reference.tokenizer = copy.deepcopy(small_policy.tokenizer)
    with pytest.raises(ModelError, match="encoder-decoder"):
        kl_to_reference(small_policy, reference, PROMPTS)


# ----------------------------------------------------------------------------------------------------------- own samples


def test_divergence_of_one_token_is_the_exact_sum(small_policy: Policy, other: Policy) -> None:
    prompt = PROMPTS[1]
    given = torch.tensor([small_policy.encode_prompt(prompt)])
    with torch.no_grad():
        other.base.model.norm.weight.mul_(4)  # further away than two fresh models are
        p, q = (
            policy.model(input_ids=given).logits[0, -1].double().log_softmax(-1) for policy in (small_policy, other)
        )
    exact = float((p.exp() * (p - q)).sum())
    found, per_token = kl_to_reference(small_policy, other, [prompt], 4000, max_new_tokens=1, batch_rows=4000)
    error = np.std(found.values) / math.sqrt(len(found.values))
    assert abs(found.interval.mean - exact) < 4 * error
    assert error < exact / 10
    assert per_token.interval.mean == pytest.approx(found.interval.mean)


def test_the_divergence_to_itself_is_zero(small_policy: Policy, encoder_decoder: Policy) -> None:
    for policy in (small_policy, encoder_decoder):
        found, per_token = kl_to_reference(policy, policy.reference(), PROMPTS, 2, max_new_tokens=6)
        assert found.values == (0.0,) * 6
        assert per_token.interval.mean == 0.0


def test_a_report_holds_each_sample_with_its_numbers(small_policy: Policy, other: Policy) -> None:
    report = sample_report(small_policy, other, PROMPTS, [LENGTH], n=2, seed=7, max_new_tokens=9)
    drawn = sample(small_policy, PROMPTS, n=2, seed=7, max_new_tokens=9)
    flat = [(i, j, found) for i, samples in enumerate(drawn) for j, found in enumerate(samples.samples)]
    assert [(row.prompt_index, row.sample_index) for row in report.rows] == [(i, j) for i, j, _ in flat]
    for row, (i, _, found) in zip(report.rows, flat, strict=True):
        assert (row.prompt, row.text, row.tokens, row.finished) == (
            PROMPTS[i],
            found.text,
            len(found.ids),
            found.finished,
        )
        assert row.logp == pytest.approx(found.logp, abs=1e-4)
        tree = Tree(other.encode_prompt(PROMPTS[i]), [found.ids])
        assert row.reference_logp == pytest.approx(float(other.token_logps([tree]).sums()), abs=1e-4)
        assert row.rewards == {"length": len(found.text)}
    ratios = [row.logp - (row.reference_logp or 0) for row in report.rows]
    tokens = [row.tokens for row in report.rows]
    assert report.kl().interval.mean == pytest.approx(np.mean(ratios))
    assert report.kl_per_token().interval.mean == pytest.approx(sum(ratios) / sum(tokens))
    assert report.kl().interval.n == len(PROMPTS)
    assert report.tokens().interval.mean == np.mean(tokens)
    assert report.at_cap().values == tuple(float(not row.finished) for row in report.rows)


def test_responses_are_sampled_and_rewarded_once(small_policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    spy = CheckedReward("spy", lambda prompts, responses: calls.append(len(responses)) or [1.0] * len(responses))
    report = sample_report(small_policy, None, PROMPTS, [spy, LENGTH], n=2, max_new_tokens=4)
    assert calls == [6]
    assert report.reward("spy").values == (1.0,) * 6
    assert report.reward("spy").interval.low == 1.0
    assert report.rows[0].reference_logp is None and report.rows[0].log_ratio is None


def test_reward_and_length_are_those_of_the_samples(small_policy: Policy) -> None:
    texts = [text for s in sample(small_policy, PROMPTS, n=1, max_new_tokens=5) for text in s.texts]
    found = reward_of_samples(small_policy, PROMPTS, LENGTH, max_new_tokens=5)
    assert found.values == tuple(map(float, map(len, texts)))
    assert found.interval == bootstrap_mean(found.values)
    tokens, at_cap = length_of_samples(small_policy, PROMPTS, max_new_tokens=1)
    assert tokens.values == (1.0, 1.0, 1.0)
    assert at_cap.interval.mean in (0.0, 1 / 3, 2 / 3, 1.0)


def test_divergence_needs_a_reference_and_the_policys_own_temperature(small_policy: Policy) -> None:
    with pytest.raises(OptionError, match="KL needs a reference"):
        sample_report(small_policy, None, PROMPTS, max_new_tokens=2).kl()
    report = sample_report(small_policy, small_policy, PROMPTS, max_new_tokens=2, temperature=0.5)
    with pytest.raises(OptionError, match=r"temperature 1; these were drawn at 0\.5"):
        report.kl_per_token()


def test_no_prompts_and_twice_the_same_reward_are_refused(small_policy: Policy) -> None:
    with pytest.raises(DataError, match="0 prompts"):
        sample_report(small_policy, None, [])
    with pytest.raises(OptionError, match="same name"):
        sample_report(small_policy, None, PROMPTS, [LENGTH, LENGTH])


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda prompts, responses: [math.nan] * len(responses), "broken: expected a finite number; got nan"),
        (lambda prompts, responses: [1.0], "broken: expected 3 numbers, one a response; got 1"),
        (lambda prompts, responses: None, "broken: expected a list of 3 numbers"),
    ],
)
def test_a_broken_reward_is_named(small_policy: Policy, function: Any, message: str) -> None:
    with pytest.raises(RewardError, match=message):
        reward_of_samples(small_policy, PROMPTS, CheckedReward("broken", function), max_new_tokens=2)
