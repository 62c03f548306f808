"""Token rewards of texts by two models, what is told of them, and what is refused."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from paperworks.core.errors import OptionError
from paperworks.language.logprobs import Tree
from paperworks.language.policy import Policy
from paperworks.language.sources.token_rewards import (
    TokenRewardOptions,
    check_vocabularies,
    delimiter_ids,
    rto_rewards,
    score,
    token_terms,
)
from paperworks.language.tiny import TinySpec, byte_level_tokenizer, fresh_policy

PROMPTS, TEXTS = ["The film", "A meal"], [" was good. It was long.", " to remember!"]


@pytest.fixture(scope="module")
def models(tokenizer: PreTrainedTokenizerFast) -> tuple[Policy, Policy]:
    return tuple(fresh_policy(TinySpec(layers=1, width=32, seed=seed), tokenizer) for seed in (0, 1))  # type: ignore[return-value]


def test_scores_of_texts_are_the_log_ratios_of_their_tokens(models: tuple[Policy, Policy]) -> None:
    dpo, reference = models
    options = TokenRewardOptions(beta1=1.0, token_clip=None)
    for found, prompt, text in zip(score(dpo, reference, PROMPTS, TEXTS, options), PROMPTS, TEXTS, strict=True):
        tree = [Tree(dpo.encode_prompt(prompt), [dpo.encode_response(text)])]
        expected = dpo.token_logps(tree).sums() - reference.token_logps(tree).sums()
        assert found["sequence"] == pytest.approx(expected.item(), abs=1e-4)
        assert sum(found["token_reward"]) == pytest.approx(found["sequence"])
        assert len(found["tokens"]) == len(found["token_reward"]) == len(dpo.encode_response(text))
        assert "".join(found["tokens"]).startswith(text)


def test_clipping_and_granularity_of_scores(models: tuple[Policy, Policy]) -> None:
    dpo, reference = models
    clipped = score(dpo, reference, PROMPTS, TEXTS, TokenRewardOptions(beta1=1.0, token_clip=0.01))
    assert all(abs(value) <= 0.01 + 1e-9 for found in clipped for value in found["token_reward"])
    delimiters = delimiter_ids(dpo)
    by_sentence = score(
        dpo, reference, PROMPTS, TEXTS, TokenRewardOptions(granularity="delimiter", delimiters=delimiters)
    )
    for found in by_sentence:
        paid = [token for token, value in zip(found["tokens"], found["token_reward"]) if value]
        assert all(token.rstrip(" ").endswith((".", "!", "?", "\n")) for token in paid[:-1])


def test_models_of_other_vocabularies_are_refused(models: tuple[Policy, Policy]) -> None:
    other = fresh_policy(TinySpec(layers=1, width=32), byte_level_tokenizer(["other texts altogether"], 300))
    with pytest.raises(OptionError, match="have different vocabularies"):
        check_vocabularies({"the DPO model": models[0], "its reference": other})
    with pytest.raises(OptionError, match="1 prompts for 2 texts"):
        score(*models, PROMPTS[:1], TEXTS)


def test_what_is_logged_and_warned_of() -> None:
    response, zero = torch.tensor([0, 0, 1]), torch.zeros(3)
    found = rto_rewards(torch.tensor([3.0, -3, 3]), zero, zero, torch.tensor([0.05, -0.05]), response)
    figures = found.figures()
    assert figures["token_terms_clamped"] == 1 and figures["token_term_max"] == pytest.approx(0.05)
    assert figures["token_terms"] == pytest.approx(0.025) and figures["reward_size"] == pytest.approx(0.05)
    assert "their sizes sum to 1.5 times that of the response's reward" in found.notes()[0]
    assert rto_rewards(torch.tensor([0.1, 0, 0]), zero, zero, torch.tensor([1.0, 1.0]), response).notes() == []


def test_refusals() -> None:
    zero, response = torch.zeros(2), torch.zeros(2, dtype=torch.long)
    with pytest.raises(OptionError, match="beta3=1 weights a reward and there is none; give one, or beta3=0"):
        rto_rewards(zero, zero, zero, None, response)
    assert not rto_rewards(zero, zero, zero, None, response, TokenRewardOptions(beta3=0)).values.any()
    with pytest.raises(OptionError, match="granularity=delimiter with 0 delimiters"):
        TokenRewardOptions(granularity="delimiter")
    with pytest.raises(OptionError, match="granularity=token with 1 delimiters"):
        TokenRewardOptions(delimiters=(3,))
    with pytest.raises(OptionError, match="takes the tokens' ids"):
        token_terms(zero, zero, response, TokenRewardOptions(granularity="delimiter", delimiters=(3,)))
    with pytest.raises(OptionError, match=r"token_clip=0\.0 is out of range: it must be > 0"):
        TokenRewardOptions(token_clip=0.0)
