"""Sampling from the token-level geometric mixture of two policies, against the exact product."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from paperworks.core.errors import ModelError, OptionError
from paperworks.language.logprobs import Tree
from paperworks.language.policy import LoraOptions, Policy
from paperworks.language.sampling import Mixture, Samples, sample
from paperworks.language.testbeds.reviews import generate_reviews
from paperworks.language.tiny import TinySpec, byte_level_tokenizer, fresh_policy

PROMPTS = ["The film", "I thought the plot of the film was"]


def shaken(policy: Policy, seed: int = 1, by: float = 0.05) -> Policy:
    """A frozen copy with other weights."""
    other = policy.reference()
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in other.model.parameters():
            parameter.add_(by * torch.randn_like(parameter))
    return other


def ids(drawn: Sequence[Samples]) -> list[tuple[int, ...]]:
    return [found.ids for samples in drawn for found in samples.samples]


def draw(policy: Policy, mixture: Mixture | None = None, **more: Any) -> list[Samples]:
    return sample(policy, PROMPTS, **{"n": 3, "max_new_tokens": 8, "mixture": mixture, **more})


def next_logps(policy: Policy, tokens: Sequence[int]) -> torch.Tensor:
    with torch.no_grad(), policy.acting():
        return policy.model(input_ids=torch.tensor([list(tokens)])).logits[0, -1].double().log_softmax(-1)


def test_no_share_is_the_policy_and_a_whole_share_the_other(small_policy: Policy) -> None:
    other = shaken(small_policy)
    assert ids(draw(small_policy, Mixture(other, 0.0))) == ids(draw(small_policy))
    assert ids(draw(small_policy, Mixture(other, 1.0))) == ids(draw(other))
    assert ids(draw(small_policy)) != ids(draw(other))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_log_probabilities_stay_the_policys(share: float, small_policy: Policy) -> None:
    drawn = draw(small_policy, Mixture(shaken(small_policy), share))
    trees = [Tree(small_policy.encode_prompt(s.prompt), [found.ids for found in s.samples]) for s in drawn]
    own = torch.tensor([found.logp for s in drawn for found in s.samples])
    torch.testing.assert_close(own, small_policy.token_logps(trees).sums(), atol=1e-4, rtol=0)


def check_frequencies(seen: np.ndarray, wanted: np.ndarray) -> None:
    """A chi-square test at a fixed seed; what is rare is counted together."""
    expected = wanted * seen.sum()
    often = expected >= 5
    assert often.sum() > 3
    counts, means = [*seen[often], seen[~often].sum()], [*expected[often], expected[~often].sum()]
    assert chisquare(counts, np.array(means) * seen.sum() / sum(means)).pvalue > 1e-3


@pytest.mark.parametrize(("share", "temperature"), [(0.5, 1.0), (0.25, 0.5)])
def test_first_tokens_have_the_product_s_frequencies(share: float, temperature: float, small_policy: Policy) -> None:
    other, n = shaken(small_policy, by=0.2), 3000
    prompt = small_policy.encode_prompt(PROMPTS[1])
    blend = (1 - share) * next_logps(small_policy, prompt) + share * next_logps(other, prompt)
    wanted = (blend / temperature).softmax(-1).numpy()
    mixture = Mixture(other, share)
    drawn = sample(
        small_policy, PROMPTS[1:], n=n, max_new_tokens=1, batch_rows=n, mixture=mixture, temperature=temperature
    )
    check_frequencies(np.bincount([i for (i,) in ids(drawn)], minlength=len(wanted)), wanted)


def test_the_product_is_taken_token_by_token() -> None:
    """Two tokens over a vocabulary small enough to enumerate: pi_b(y1) pi_b(y2 | y1), each step normalised alone."""
    tokenizer = byte_level_tokenizer([p + r for p, r in generate_reviews(20, 0)], 260)
    policy = fresh_policy(TinySpec(layers=1, width=16, heads=2, context=32), tokenizer)
    with torch.no_grad():  # a few tokens have nearly all the mass
        policy.base.get_output_embeddings().weight.mul_(60)
    other, n = shaken(policy, by=0.3), 4000
    prompt = policy.encode_prompt("a")

    def step(tokens: Sequence[int]) -> torch.Tensor:
        return (0.6 * next_logps(policy, tokens) + 0.4 * next_logps(other, tokens)).softmax(-1)

    first = step(prompt)
    end = tokenizer.eos_token_id
    likely = first.topk(6).indices.tolist()
    wanted = {(y,): float(first[y]) for y in likely if y == end}
    for y in likely:
        if y != end:
            second = step([*prompt, y])
            wanted |= {(y, z): float(first[y] * second[z]) for z in second.topk(4).indices.tolist()}
    seen = Counter(ids(sample(policy, ["a"], n=n, max_new_tokens=2, batch_rows=n, mixture=Mixture(other, 0.4))))
    counts = np.array([seen[pair] for pair in wanted] + [n - sum(seen[pair] for pair in wanted)])
    check_frequencies(counts, np.array([*wanted.values(), 1 - sum(wanted.values())]))


def test_rows_of_a_mixture_do_not_depend_on_their_batch(small_policy: Policy) -> None:
    mixture = Mixture(shaken(small_policy), 0.5)
    assert ids(draw(small_policy, mixture)) == ids(draw(small_policy, mixture, batch_rows=3))


def test_the_reference_of_adapters_is_the_weights_beneath(small_policy: Policy) -> None:
    """A share of 1 draws what the model drew without adapters; the adapters act again afterwards."""
    plain = ids(draw(small_policy))
    policy = small_policy.with_lora(LoraOptions(rank=2))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.5 * torch.randn_like(parameter))
    reference, own = policy.reference(), ids(draw(policy))
    assert own != plain
    assert ids(draw(policy, Mixture(reference, 1.0))) == plain
    assert ids(draw(policy, Mixture(reference, 0.0))) == own == ids(draw(policy))


def test_what_cannot_be_mixed_is_said(small_policy: Policy, encoder_decoder: Policy) -> None:
    with pytest.raises(OptionError, match=r"share=1\.5: expected a number in \[0, 1\]"):
        draw(small_policy, Mixture(small_policy, 1.5))
    tokenizer = byte_level_tokenizer(["other words"], 300)
    other = fresh_policy(TinySpec(layers=1, width=16, heads=2, context=64), tokenizer, name="other")
    with pytest.raises(OptionError, match="tiny and other have different vocabularies"):
        draw(small_policy, Mixture(other, 0.5))
    with pytest.raises(ModelError, match="is not decoded by the packed path"):
        draw(encoder_decoder, Mixture(encoder_decoder, 0.5))
