"""Samples are draws from the policy: right log-probabilities, right frequencies, and each row on its own."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from transformers import BloomConfig, BloomForCausalLM, MistralConfig, MistralForCausalLM

from paperworks.core.errors import DataError, OptionError
from paperworks.language.logprobs import Tree
from paperworks.language.policy import LoraOptions, Policy
from paperworks.language.sampling import Samples, SamplingOptions, end_tokens, sample

PROMPTS = ["The film", "", "I thought the plot of the film was", "x y z"]
WARPED: dict[str, Any] = {"temperature": 0.7, "top_k": 50, "top_p": 0.9, "repetition_penalty": 1.3}


@pytest.fixture(scope="session")
def bloom(tokenizer: Any) -> Policy:
    torch.manual_seed(0)
    config = BloomConfig(vocab_size=len(tokenizer), hidden_size=32, n_layer=2, n_head=4, eos_token_id=1)
    return Policy(BloomForCausalLM(config).eval(), tokenizer, name="bloom")


@pytest.fixture(scope="session", params=["bloom", "encoder_decoder"])
def without_packing(request: pytest.FixtureRequest) -> Policy:
    """A policy whose samples come through transformers' `generate`."""
    policy: Policy = request.getfixturevalue(request.param)
    assert policy.method == "padded"
    return policy


def ids(drawn: Sequence[Samples]) -> list[tuple[int, ...]]:
    return [found.ids for samples in drawn for found in samples.samples]


def logits_after(policy: Policy, prompt: str) -> torch.Tensor:
    """The model's own logits of the first response token."""
    with torch.no_grad():
        return policy.model(input_ids=torch.tensor([policy.encode_prompt(prompt)])).logits[0, -1].double()


# ------------------------------------------------------------------------------------------------------- log-probabilities


def check_logps(policy: Policy, **options: Any) -> None:
    drawn = sample(policy, PROMPTS, n=3, max_new_tokens=20, **options)
    trees = [Tree(policy.encode_prompt(s.prompt), [found.ids for found in s.samples]) for s in drawn]
    own = torch.tensor([found.logp for s in drawn for found in s.samples])
    torch.testing.assert_close(own, policy.token_logps(trees).sums(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("options", [{}, WARPED, {"temperature": 0.0}], ids=["plain", "warped", "greedy"])
def test_log_probabilities_are_the_learners(any_decoder: Policy, options: dict[str, Any]) -> None:
    assert any_decoder.method == "packed"
    check_logps(any_decoder, **options)


def test_log_probabilities_are_those_of_the_learners_own_temperature(
    any_decoder: Policy, encoder_decoder: Policy
) -> None:
    for policy in (any_decoder, encoder_decoder):
        check_logps(policy.at_temperature(0.6), temperature=0.6)


@pytest.mark.parametrize("options", [{}, WARPED], ids=["plain", "warped"])
def test_log_probabilities_are_the_learners_through_generate(without_packing: Policy, options: dict[str, Any]) -> None:
    check_logps(without_packing, **options)


# ---------------------------------------------------------------------------------------------------------------- greedy


def check_greedy(policy: Policy) -> None:
    ours = sample(policy, PROMPTS, max_new_tokens=24, temperature=0.0)
    for prompt, samples in zip(PROMPTS, ours, strict=True):
        tokens = policy.encode_prompt(prompt)
        given = torch.tensor([tokens])
        theirs = policy.model.generate(
            input_ids=given, attention_mask=torch.ones_like(given), do_sample=False, max_new_tokens=24,
            eos_token_id=end_tokens(policy), pad_token_id=policy.tokenizer.pad_token_id,
        )  # fmt: skip
        start = 1 if policy.is_encoder_decoder else len(tokens)
        assert list(samples.samples[0].ids) == theirs[0, start:].tolist()


def test_greedy_is_transformers_greedy_token_by_token(any_decoder: Policy) -> None:
    check_greedy(any_decoder)


def test_greedy_is_transformers_greedy_through_generate(without_packing: Policy) -> None:
    check_greedy(without_packing)


@pytest.mark.parametrize("options", [{"top_k": 1}, {"temperature": 1e-5}, {"top_p": 1e-9}])
def test_the_limits_of_warping_are_greedy(any_decoder: Policy, options: dict[str, Any]) -> None:
    greedy = sample(any_decoder, PROMPTS, max_new_tokens=12, temperature=0.0)
    assert ids(sample(any_decoder, PROMPTS, max_new_tokens=12, **options)) == ids(greedy)


# ---------------------------------------------------------------------------------------------------------- frequencies


def check_frequencies(policy: Policy, wanted: torch.Tensor, n: int = 2000, **options: Any) -> None:
    """One-token draws against exact probabilities, by a chi-square test at a fixed seed."""
    drawn = sample(policy, [PROMPTS[2]], n=n, max_new_tokens=1, batch_rows=n, **options)
    seen = np.bincount([found.ids[0] for found in drawn[0].samples], minlength=len(wanted))
    expected = wanted.numpy() * n
    assert seen[expected == 0].sum() == 0
    often = expected >= 5
    assert often.sum() > 3
    counts, means = [*seen[often], seen[~often].sum()], [*expected[often], expected[~often].sum()]
    if means[-1] < 5:  # too rare a rest for the test: it joins the last of the frequent ones
        counts[-2:], means[-2:] = [sum(counts[-2:])], [sum(means[-2:])]
    assert chisquare(counts, np.array(means) * n / sum(means)).pvalue > 1e-3


def check_all_frequencies(policy: Policy) -> None:
    logits = logits_after(policy, PROMPTS[2])
    check_frequencies(policy, logits.softmax(-1))
    check_frequencies(policy, (logits / 0.2).softmax(-1), temperature=0.2)

    kept = torch.zeros_like(logits)
    kept[logits.topk(12).indices] = logits.topk(12).values.softmax(-1)
    check_frequencies(policy, kept, top_k=12)

    probabilities, order = (logits / 0.2).softmax(-1).sort(descending=True)
    size = int((probabilities.cumsum(-1) < 0.6).sum()) + 1  # the fewest tokens that reach the mass
    kept = torch.zeros_like(logits)
    kept[order[:size]] = probabilities[:size] / probabilities[:size].sum()
    check_frequencies(policy, kept, temperature=0.2, top_p=0.6)

    used = torch.tensor(sorted(set(policy.encode_prompt(PROMPTS[2]))))
    penalised = logits.clone()
    penalised[used] = torch.where(logits[used] > 0, logits[used] / 3, logits[used] * 3)
    check_frequencies(policy, (penalised / 0.2).softmax(-1), temperature=0.2, repetition_penalty=3.0)


def test_frequencies_are_the_softmax(small_policy: Policy) -> None:
    check_all_frequencies(small_policy)


def test_frequencies_are_the_softmax_through_generate(bloom: Policy) -> None:
    check_all_frequencies(bloom)


# ------------------------------------------------------------------------------------------------------------ independence


def check_independence(policy: Policy, **options: Any) -> None:
    def drawn(prompts: Sequence[str], **more: Any) -> list[Samples]:
        return sample(policy, prompts, max_new_tokens=12, **options, **more)

    whole = drawn(PROMPTS, n=4)
    for batch_rows in (1, 3, 8):
        assert ids(drawn(PROMPTS, n=4, batch_rows=batch_rows)) == ids(whole)
    assert ids(drawn(PROMPTS[:2], n=4)) == ids(whole[:2])  # the other prompts
    assert [s.samples[:2] for s in drawn(PROMPTS, n=4)] == [s.samples for s in drawn(PROMPTS, n=2)]
    assert ids(drawn(PROMPTS, n=4, seed=1)) != ids(whole)
    assert len(set(ids(whole[:1]))) == 4


@pytest.mark.parametrize("options", [{}, WARPED], ids=["plain", "warped"])
def test_a_rows_draws_depend_on_nothing_beside_it(any_decoder: Policy, options: dict[str, Any]) -> None:
    check_independence(any_decoder, **options)


@pytest.mark.parametrize("options", [{}, WARPED], ids=["plain", "warped"])
def test_a_rows_draws_depend_on_nothing_beside_it_through_generate(
    without_packing: Policy, options: dict[str, Any]
) -> None:
    check_independence(without_packing, **options)


def test_both_ways_of_decoding_draw_the_same(any_decoder: Policy) -> None:
    fast = sample(any_decoder, PROMPTS, n=2, max_new_tokens=12, **WARPED)
    slow = Policy(any_decoder.model, any_decoder.tokenizer)
    slow.__dict__["method"] = "padded"
    again = sample(slow, PROMPTS, n=2, max_new_tokens=12, **WARPED)
    assert ids(again) == ids(fast)
    for mine, theirs in zip(fast, again, strict=True):
        assert [s.finished for s in mine.samples] == [s.finished for s in theirs.samples]
        np.testing.assert_allclose([s.logp for s in mine.samples], [s.logp for s in theirs.samples], atol=1e-4)


def test_global_random_numbers_are_left_alone(any_decoder: Policy, encoder_decoder: Policy) -> None:
    before = torch.get_rng_state()
    for policy in (any_decoder, encoder_decoder):
        sample(policy, PROMPTS, n=2, max_new_tokens=3)
    assert torch.equal(torch.get_rng_state(), before)


# ------------------------------------------------------------------------------------------------------------------ ends


def check_stop(policy: Policy) -> None:
    free = sample(policy, PROMPTS, n=2, max_new_tokens=16)
    for number, samples in enumerate(free):
        whole = samples.samples[0]
        stop = whole.text[len(whole.text) // 2 :][:2]
        at = whole.text.find(stop)
        assert stop and at >= 0
        stopped = sample(policy, PROMPTS, n=2, max_new_tokens=16, stop=[stop, "never, never"])[number].samples[0]
        assert stopped.text == whole.text[:at]
        assert stopped.finished
        assert stopped.ids == whole.ids[: len(stopped.ids)]
        shorter = policy.decode(stopped.ids[:-1])
        assert stop not in shorter and stop in policy.decode(stopped.ids)  # ended at the first token that completes it


def test_a_stop_string_ends_a_response(any_decoder: Policy) -> None:
    check_stop(any_decoder)


def test_a_stop_string_ends_a_response_through_generate(without_packing: Policy) -> None:
    check_stop(without_packing)


def check_ends(policy: Policy) -> None:
    """With an end token that is likely, responses end there; the others are cut at max_new_tokens."""
    drawn = sample(policy, PROMPTS, n=30, max_new_tokens=40, temperature=3.0)
    ends, seen = set(end_tokens(policy)), set()
    for samples in drawn:
        for found in samples.samples:
            assert 1 <= len(found.ids) <= 40
            assert not ends & set(found.ids[:-1])
            assert found.finished == (found.ids[-1] in ends)
            assert found.finished or len(found.ids) == 40
            assert found.text == policy.decode(found.ids)
            seen.add(found.finished)
    assert seen == {True, False}


def test_responses_end_at_the_end_token_or_the_cap(any_decoder: Policy) -> None:
    check_ends(any_decoder)


def test_responses_end_at_the_end_token_or_the_cap_through_generate(without_packing: Policy) -> None:
    check_ends(without_packing)


def test_every_end_token_of_the_model_ends_a_response(small_policy: Policy) -> None:
    free = sample(small_policy, PROMPTS, max_new_tokens=10)[0].samples[0]
    small_policy.base.generation_config.eos_token_id = [1, free.ids[3]]
    ended = sample(small_policy, PROMPTS, max_new_tokens=10)[0].samples[0]
    assert ended.ids == free.ids[: free.ids.index(free.ids[3]) + 1] and ended.finished


def test_the_end_of_the_context_cuts_only_the_row_that_meets_it(small_policy: Policy) -> None:
    word = small_policy.encode_prompt("The film")[:1]
    long = small_policy.decode(word * 250)
    room = small_policy.context_length - len(small_policy.encode_prompt(long))
    assert 0 < room < 12
    alone = sample(small_policy, ["The film"], max_new_tokens=12)[0].samples[0]
    first, second = (s.samples[0] for s in sample(small_policy, ["The film", long], max_new_tokens=12))
    assert first.ids == alone.ids and len(first.ids) == 12
    assert len(second.ids) == room and not second.finished


def test_a_prompt_without_room_is_named(small_policy: Policy, encoder_decoder: Policy) -> None:
    long = "The film " * 400
    with pytest.raises(DataError, match=r"prompt 2 has \d+ tokens; the context of the model is 256"):
        sample(small_policy, ["The film", long])


@pytest.mark.parametrize("length", [6, 30])
def test_a_sliding_window_is_respected(tokenizer: Any, length: int) -> None:
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, sliding_window=12, eos_token_id=1,
    )  # fmt: skip
    policy = Policy(MistralForCausalLM(config).eval(), tokenizer)
    prompt = policy.decode(policy.encode_prompt("I thought the plot of the film was very dull and sad " * 4)[:length])
    found = sample(policy, [prompt], n=3, max_new_tokens=15)[0].samples
    scored = policy.token_logps([Tree(policy.encode_prompt(prompt), [s.ids for s in found])]).sums()
    torch.testing.assert_close(torch.tensor([s.logp for s in found]), scored, atol=1e-4, rtol=0)


# ---------------------------------------------------------------------------------------------------------------- policies


def test_habits_in_a_models_folder_do_not_change_the_policy(encoder_decoder: Policy) -> None:
    plain = sample(encoder_decoder, PROMPTS, n=2, max_new_tokens=10)
    own = encoder_decoder.base.generation_config
    habits = copy.deepcopy(own)
    habits.num_beams, habits.no_repeat_ngram_size, habits.min_length, habits.forced_bos_token_id = 4, 1, 20, 7
    encoder_decoder.base.generation_config = habits
    try:
        assert ids(sample(encoder_decoder, PROMPTS, n=2, max_new_tokens=10)) == ids(plain)
        assert encoder_decoder.base.generation_config is habits
    finally:
        encoder_decoder.base.generation_config = own


def test_a_lora_reference_samples_with_its_adapters_off(small_policy: Policy) -> None:
    before = sample(small_policy, PROMPTS, max_new_tokens=8)
    adapted = small_policy.with_lora(LoraOptions(rank=2))
    with torch.no_grad():
        for name, parameter in adapted.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    assert ids(sample(adapted, PROMPTS, max_new_tokens=8)) != ids(before)
    assert ids(sample(adapted.reference(), PROMPTS, max_new_tokens=8)) == ids(before)


def test_sampling_leaves_training_mode_as_it_was(small_policy: Policy) -> None:
    small_policy.model.train()
    sample(small_policy, PROMPTS, max_new_tokens=2)
    assert small_policy.model.training


# --------------------------------------------------------------------------------------------------------------- reporting


def check_reports(policy: Policy) -> None:
    texts: dict[tuple[int, int], list[str]] = {}
    done: dict[int, Samples] = {}
    drawn = sample(
        policy, PROMPTS, n=2, max_new_tokens=6,
        on_token=lambda i, j, text: texts.setdefault((i, j), []).append(text), on_prompt=done.__setitem__,
    )  # fmt: skip
    assert [done[i] for i in range(len(PROMPTS))] == drawn
    for i, samples in enumerate(drawn):
        for j, found in enumerate(samples.samples):
            assert len(texts[i, j]) == len(found.ids)
            assert texts[i, j][-1] == found.text
            assert found.text.startswith(texts[i, j][0].rstrip("\ufffd"))


def test_tokens_and_prompts_are_reported_as_they_come(any_decoder: Policy) -> None:
    check_reports(any_decoder)


def test_tokens_and_prompts_are_reported_as_they_come_through_generate(without_packing: Policy) -> None:
    check_reports(without_packing)


def test_no_prompts_give_no_samples(small_policy: Policy) -> None:
    assert sample(small_policy, []) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens=0: expected at least 1"),
        ({"temperature": -1.0}, "temperature=-1.0: expected 0"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"top_k": -1}, "top_k=-1"),
        ({"top_p": 0.0}, "top_p=0.0: expected a number in"),
        ({"top_p": 1.5}, "top_p=1.5"),
        ({"repetition_penalty": 0.0}, "repetition_penalty=0.0"),
        ({"stop": ("",)}, "non-empty strings"),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        SamplingOptions(**options)


@pytest.mark.parametrize("option", ["n", "batch_rows"])
def test_counts_below_one_are_named(small_policy: Policy, option: str) -> None:
    with pytest.raises(OptionError, match=f"{option}=0: expected at least 1"):
        sample(small_policy, PROMPTS, **{option: 0})
