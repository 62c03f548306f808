"""How text becomes tokens, what the frozen start of a policy is, and that a saved policy is the same policy."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from paperworks.core.errors import DataError, ModelError, OptionError
from paperworks.language.logprobs import Tree
from paperworks.language.policy import LoraOptions, Policy

TREES = [Tree([5, 6, 7], [[8, 9], [10, 11, 12]]), Tree([20], [[30, 1]])]
MESSAGES = ({"role": "user", "content": "Was it good?"},)


def scores(policy: Policy) -> torch.Tensor:
    return policy.token_logps(TREES).sums()


def shift(policy: Policy) -> None:
    """Change what trains."""
    with torch.no_grad():
        for parameter in policy.model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))


def without(policy: Policy, **missing: Any) -> Policy:
    """The same model with a tokenizer that lacks something."""
    tokenizer = copy.deepcopy(policy.tokenizer)
    for name, value in missing.items():
        setattr(tokenizer, name, value)
    return Policy(policy.model, tokenizer, name="bare")


# ---------------------------------------------------------------------------------------------------------------- tokens


def test_a_response_is_its_text_and_one_end_token(any_decoder: Policy) -> None:
    end = any_decoder.tokenizer.eos_token_id
    for text in (" was very dull.", "", "ünï\n\tcode ☃"):
        ids = any_decoder.encode_response(text)
        assert ids[-1] == end and ids.count(end) == 1
        assert any_decoder.decode(ids) == text
    assert any_decoder.encode_response("good<end>").count(end) == 1


def test_plain_prompts_stand_as_they_are(any_decoder: Policy) -> None:
    ids = any_decoder.encode_prompt("The film was")
    assert any_decoder.decode(ids) == "The film was"
    assert any_decoder.tokenizer.eos_token_id not in ids


def test_an_empty_prompt_is_one_token(any_decoder: Policy) -> None:
    assert any_decoder.encode_prompt("") == [any_decoder.tokenizer.eos_token_id]


def test_an_encoder_is_given_the_end_of_its_input(encoder_decoder: Policy) -> None:
    ids = encoder_decoder.encode_prompt("The film was")
    assert ids[-1] == encoder_decoder.tokenizer.eos_token_id


def test_messages_go_through_the_models_own_template(any_decoder: Policy) -> None:
    ids = any_decoder.encode_prompt(MESSAGES)
    assert any_decoder.tokenizer.decode(ids) == "user: Was it good?\nassistant:"


def test_messages_without_a_template_are_refused(any_decoder: Policy) -> None:
    bare = without(any_decoder, chat_template=None)
    with pytest.raises(ModelError, match=r"bare has no chat template.*--chat-template FILE"):
        bare.encode_prompt(MESSAGES)


def test_what_a_template_refuses_is_said_in_its_words(any_decoder: Policy) -> None:
    picky = without(any_decoder, chat_template="{{ raise_exception('only one system message, please') }}")
    with pytest.raises(DataError, match="bare refused the messages: only one system message, please"):
        picky.encode_prompt(MESSAGES)


def test_a_tokenizer_without_padding_pads_with_the_end_token(any_decoder: Policy) -> None:
    bare = without(any_decoder, pad_token=None)
    assert bare.tokenizer.pad_token_id == bare.tokenizer.eos_token_id
    torch.testing.assert_close(scores(bare), scores(any_decoder))


def test_a_tokenizer_without_an_end_token_is_refused(any_decoder: Policy) -> None:
    with pytest.raises(ModelError, match="no end-of-sequence token"):
        without(any_decoder, eos_token=None)


# ------------------------------------------------------------------------------------------------------------- reference


def test_the_reference_of_full_weights_is_a_frozen_copy(small_policy: Policy) -> None:
    before, reference = scores(small_policy), small_policy.reference()
    assert not any(parameter.requires_grad for parameter in reference.model.parameters())
    shift(small_policy)
    assert not torch.allclose(scores(small_policy), before, atol=1e-2)
    torch.testing.assert_close(scores(reference), before)


def test_adapters_start_at_the_model_and_by_their_seed(small_policy: Policy) -> None:
    def adapters(seed: int) -> dict[str, torch.Tensor]:
        adapted = Policy(copy.deepcopy(small_policy.model), small_policy.tokenizer).with_lora(
            LoraOptions(rank=2), seed=seed
        )
        torch.testing.assert_close(scores(adapted), scores(small_policy))
        return {name: p.detach() for name, p in adapted.model.named_parameters() if "lora_A" in name}

    first, again, other = adapters(3), adapters(3), adapters(4)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_adapters_are_put_on_once(small_policy: Policy) -> None:
    with pytest.raises(ModelError, match="carries adapters already"):
        small_policy.with_lora(LoraOptions(rank=2)).with_lora(LoraOptions(rank=2))


def test_adapters_on_modules_that_are_not_there_are_refused(small_policy: Policy) -> None:
    with pytest.raises(ModelError, match="LoRA cannot be put on tiny"):
        small_policy.with_lora(LoraOptions(rank=2, targets="nothing_of_that_name"))


@pytest.mark.parametrize("options", [{"rank": 0}, {"dropout": 1.0}, {"dropout": -0.1}])
def test_adapter_options_out_of_range_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        LoraOptions(**options)


def test_acting_turns_dropout_off_and_training_back_on(small_policy: Policy) -> None:
    adapted = small_policy.with_lora(LoraOptions(rank=2, dropout=0.5))
    shift(adapted)
    adapted.model.train()
    torch.testing.assert_close(scores(adapted), scores(adapted))
    assert adapted.model.training


def test_the_content_hash_is_that_of_what_acts(small_policy: Policy, tmp_path: Path) -> None:
    start = small_policy.content_hash()
    assert Policy.load(small_policy.save(tmp_path / "model"), device="cpu").content_hash() == start
    adapted = small_policy.with_lora(LoraOptions(rank=2))
    shift(adapted)
    assert adapted.content_hash() != start
    other_template = without(small_policy, chat_template="{{ messages }}")
    assert other_template.content_hash() != adapted.reference().content_hash()


def test_the_hash_of_a_lora_reference_does_not_follow_training(small_policy: Policy) -> None:
    adapted = small_policy.with_lora(LoraOptions(rank=2))
    before = adapted.reference().content_hash()
    shift(adapted)
    assert adapted.reference().content_hash() == before


# ---------------------------------------------------------------------------------------------------- saving and loading


def test_a_saved_policy_is_the_same_and_loads_with_plain_transformers(any_decoder: Policy, tmp_path: Path) -> None:
    any_decoder.save(tmp_path / "model")
    loaded = Policy.load(tmp_path / "model", device="cpu")
    torch.testing.assert_close(scores(loaded), scores(any_decoder))
    assert loaded.encode_prompt(MESSAGES) == any_decoder.encode_prompt(MESSAGES)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    text = "The film was dull, ünï."
    assert AutoTokenizer.from_pretrained(tmp_path / "model")(text).input_ids == any_decoder.tokenizer(text).input_ids
    with torch.no_grad():
        given = torch.tensor([[5, 6, 7]])
        torch.testing.assert_close(plain(given).logits, any_decoder.model(given).logits, atol=1e-5, rtol=1e-5)
    assert not list((tmp_path / "model").glob("*.bin"))


def test_a_saved_encoder_decoder_is_the_same(encoder_decoder: Policy, tmp_path: Path) -> None:
    loaded = Policy.load(encoder_decoder.save(tmp_path / "model"), device="cpu")
    assert loaded.is_encoder_decoder
    torch.testing.assert_close(scores(loaded), scores(encoder_decoder))


def test_saved_adapters_load_with_their_model_beneath_them(small_policy: Policy, tmp_path: Path) -> None:
    start = scores(small_policy)
    small_policy.save(tmp_path / "base")
    adapted = Policy.load(tmp_path / "base", lora=LoraOptions(rank=2), device="cpu")
    shift(adapted)
    adapted.save(tmp_path / "adapter")
    loaded = Policy.load(tmp_path / "adapter", device="cpu")
    assert loaded.has_adapters
    torch.testing.assert_close(scores(loaded), scores(adapted))
    torch.testing.assert_close(scores(loaded.reference()), start)


def test_a_run_folder_loads_as_its_model(small_policy: Policy, tmp_path: Path) -> None:
    small_policy.save(tmp_path / "run" / "model")
    torch.testing.assert_close(scores(Policy.load(tmp_path / "run", device="cpu")), scores(small_policy))


def test_saving_replaces_a_model_only_when_the_new_one_is_whole(
    small_policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_policy.save(tmp_path / "model")
    before = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    monkeypatch.setattr(small_policy.tokenizer, "save_pretrained", _raise)
    shift(small_policy)
    with pytest.raises(RuntimeError, match="stopped half-way"):
        small_policy.save(tmp_path / "model")
    assert {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def _raise(*args: Any, **options: Any) -> None:
    raise RuntimeError("stopped half-way")


def test_a_chat_template_can_be_given_as_text_or_file(small_policy: Policy, tmp_path: Path) -> None:
    small_policy.save(tmp_path / "model")
    template = "{% for message in messages %}<{{ message['content'] }}>{% endfor %}"
    (tmp_path / "chat.jinja").write_text(template)
    for given in (template, str(tmp_path / "chat.jinja")):
        policy = Policy.load(tmp_path / "model", chat_template=given, device="cpu")
        assert policy.tokenizer.decode(policy.encode_prompt(MESSAGES)) == "<Was it good?>"
    with pytest.raises(OptionError, match=r"chat template .*missing\.jinja: cannot be read"):
        Policy.load(tmp_path / "model", chat_template=str(tmp_path / "missing.jinja"), device="cpu")


def test_the_weights_take_the_precision_asked_for(small_policy: Policy, tmp_path: Path) -> None:
    small_policy.save(tmp_path / "model")
    loaded = Policy.load(tmp_path / "model", precision="bfloat16", device="cpu")
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.bfloat16}
    assert scores(loaded).dtype == torch.float32
    torch.testing.assert_close(scores(loaded), scores(small_policy), atol=0.1, rtol=0)


def test_the_context_is_the_models_own(small_policy: Policy) -> None:
    assert small_policy.context_length == 256
