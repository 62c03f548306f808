"""Hidden states of prompts: the model's own, whatever stands beside them in a batch."""

from __future__ import annotations

import pytest
import torch

from paperworks.core.errors import OptionError
from paperworks.language.policy import LoraOptions, Policy
from paperworks.language.values import PromptStates, prompt_states, state_batches

PROMPTS = ["The acting in this film was", "I thought", "The plot of a film of this sort, whatever one says, was", "I"]


def plain(policy: Policy, prompt: str) -> torch.Tensor:
    ids = torch.tensor([policy.encode_prompt(prompt)])
    part = policy.base.get_encoder() if policy.is_encoder_decoder else policy.base.get_decoder()
    with torch.no_grad():
        return part(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]  # type: ignore[operator]


def of(states: PromptStates, index: int) -> torch.Tensor:
    values, mask = states.padded([index])
    return values[0, mask[0]]


def test_each_prompt_has_the_states_that_it_has_alone(any_decoder: Policy) -> None:
    states = prompt_states(any_decoder, PROMPTS)
    for index, prompt in enumerate(PROMPTS):
        assert torch.allclose(of(states, index), plain(any_decoder, prompt), atol=1e-5)


def test_the_padded_path_gives_the_packed_path_s_states(any_decoder: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = prompt_states(any_decoder, PROMPTS)
    monkeypatch.setitem(any_decoder.__dict__, "method", "padded")
    padded = prompt_states(any_decoder, PROMPTS)
    assert packed.lengths == padded.lengths
    assert torch.allclose(packed.values, padded.values, atol=1e-5)


def test_encoder_decoder_models_give_the_encoder_s_states(encoder_decoder: Policy) -> None:
    states = prompt_states(encoder_decoder, PROMPTS)
    for index, prompt in enumerate(PROMPTS):
        assert torch.allclose(of(states, index), plain(encoder_decoder, prompt), atol=1e-5)


def test_small_batches_give_the_same_states_in_the_same_order(small_policy: Policy) -> None:
    whole = prompt_states(small_policy, PROMPTS)
    assert torch.allclose(prompt_states(small_policy, PROMPTS, most_tokens=1).values, whole.values, atol=1e-5)
    indices = [index for batch, _ in state_batches(small_policy, PROMPTS, most_tokens=1) for index in batch]
    assert sorted(indices) == [0, 1, 2, 3] and whole.lengths[indices[0]] == min(whole.lengths)


def test_a_reference_with_adapters_sees_with_them_off(small_policy: Policy) -> None:
    before = prompt_states(small_policy, PROMPTS).values
    adapted = small_policy.with_lora(LoraOptions(rank=2))
    with torch.no_grad():
        for name, parameter in adapted.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    assert torch.allclose(prompt_states(adapted.reference(), PROMPTS).values, before, atol=1e-5)
    assert not torch.allclose(prompt_states(adapted, PROMPTS).values, before, atol=1e-2)


def test_no_gradient_and_the_mode_of_the_model_is_as_before(small_policy: Policy) -> None:
    small_policy.model.train()
    assert not prompt_states(small_policy, PROMPTS).values.requires_grad
    assert small_policy.model.training


def test_a_prompt_beyond_the_context_keeps_its_end(small_policy: Policy) -> None:
    long = "The acting was. " * 200
    ids = small_policy.encode_prompt(long)
    assert len(ids) > small_policy.context_length
    states = prompt_states(small_policy, [long])
    assert states.lengths == (small_policy.context_length,)


def test_padding_is_zeros_after_each_prompt() -> None:
    states = PromptStates(torch.arange(1.0, 9).view(4, 2), (1, 3))
    values, mask = states.padded([1, 0])
    assert mask.tolist() == [[True, True, True], [True, False, False]]
    assert values.tolist() == [[[3, 4], [5, 6], [7, 8]], [[1, 2], [0, 0], [0, 0]]]


def test_no_prompts_is_an_error(small_policy: Policy) -> None:
    with pytest.raises(OptionError, match="at least one prompt"):
        list(state_batches(small_policy, []))
