"""Reward models: the same scores on every path, alone or in a batch, before and after saving; what they refuse."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from paperworks.core.errors import ModelError, OptionError, RewardError
from paperworks.language.logprobs import Tree
from paperworks.language.policy import Policy
from paperworks.language.rewards import load_reward
from paperworks.language.rewards.model import RewardModel
from paperworks.language.rewards.model_forward import packed, padded
from paperworks.language.rewards.model_reward import ModelReward
from paperworks.language.testbeds.reviews import generate_reviews
from paperworks.language.text_model import LoraOptions

torch.set_num_threads(1)

DECODERS, ENCODERS = ["llama", "gpt2", "bloom"], ["bert", "distilbert", "roberta"]
every_backbone = pytest.mark.parametrize("name", [*DECODERS, *ENCODERS])
Backbone = Callable[[str], Path]

PROMPTS = [prompt for prompt, _ in generate_reviews(4, 3)] * 2
RESPONSES = [response for _, response in generate_reviews(8, 4)]


def loaded(folder: Path, **options: object) -> RewardModel:
    return RewardModel.load(folder, device="cpu", **options)  # type: ignore[arg-type]


def plain_scores(folder: Path, prompts: list[str], responses: list[str]) -> list[float]:
    """By transformers alone, a text at a time: a decoder reads prompt, response, end token; an encoder a pair."""
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    scores = []
    for prompt, response in zip(prompts, responses, strict=True):
        if hasattr(model, "score"):
            ids = tokenizer(prompt).input_ids + tokenizer(response).input_ids + [tokenizer.eos_token_id]
            inputs = {"input_ids": torch.tensor([ids])}
        else:
            inputs = dict(tokenizer(prompt, response, return_tensors="pt"))
        taken = inspect.signature(model.forward).parameters
        with torch.no_grad():
            scores.append(model(**{name: value for name, value in inputs.items() if name in taken}).logits.item())
    return scores


def moved(model: RewardModel, scale: float = 0.1) -> RewardModel:
    """The same with trained-looking weights: every trainable one a little elsewhere."""
    draw = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.model.parameters():
            if parameter.requires_grad:
                parameter.add_(scale * torch.randn(parameter.shape, generator=draw))
    return model


# ------------------------------------------------------------------------------------------------------------------ scores


@every_backbone
def test_saved_model_scores_the_same_by_transformers_alone(name: str, backbone: Backbone, tmp_path: Path) -> None:
    model = moved(loaded(backbone(name)))
    ours = model.score_texts(PROMPTS, RESPONSES)
    folder = model.save(tmp_path / "model")
    assert plain_scores(folder, PROMPTS, RESPONSES) == pytest.approx(ours, abs=1e-4)
    assert loaded(folder).score_texts(PROMPTS, RESPONSES) == pytest.approx(ours, abs=1e-6)
    assert len({round(score, 4) for score in ours}) > 4  # they do differ
    settings = json.loads((folder / "config.json").read_text())
    assert settings["pad_token_id"] is not None and settings["problem_type"] == "regression"


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_packed_scores_and_gradients_are_those_of_the_padded_forward(name: str, backbone: Backbone) -> None:
    model = moved(loaded(backbone(name)))
    assert model.method == "packed"
    prompts = [model.encode_prompt(prompt) for prompt in PROMPTS[:3]]
    ids = model.encode_responses(RESPONSES)
    trees = [Tree(prompts[0], ids[:3]), Tree(prompts[1], ids[3:4]), Tree(prompts[2], [ids[4], ids[5][:-1], ids[6]])]
    wanted = [parameter for parameter in model.model.parameters() if parameter.requires_grad]
    found = []
    for forward in (packed, padded):
        scores = forward(model, trees)
        gradients = torch.autograd.grad((scores * torch.arange(1.0, 8.0)).sum(), wanted)
        found.append((scores, torch.cat([gradient.flatten() for gradient in gradients])))
    (fast, fast_gradient), (plain, plain_gradient) = found
    assert torch.allclose(fast, plain, atol=1e-4)
    assert plain_gradient.abs().max() > 0.01
    assert torch.allclose(fast_gradient, plain_gradient, atol=1e-4 * plain_gradient.abs().max().item())


@every_backbone
def test_a_score_does_not_depend_on_what_stands_beside_it(name: str, backbone: Backbone) -> None:
    model = moved(loaded(backbone(name)))
    together = model.score_texts([*PROMPTS, PROMPTS[0]], [*RESPONSES, "so " * 40])
    alone = [model.score_texts([p], [r])[0] for p, r in zip(PROMPTS, RESPONSES, strict=True)]
    assert together[:-1] == pytest.approx(alone, abs=1e-5)
    small_batches = model.score_texts(PROMPTS, RESPONSES, most_tokens=1)
    assert small_batches == pytest.approx(alone, abs=1e-5)


def test_scores_are_one_a_response_in_tree_order(backbone: Backbone) -> None:
    model = moved(loaded(backbone("llama")))
    ids = model.encode_responses(RESPONSES[:3])
    prompts = [model.encode_prompt(prompt) for prompt in PROMPTS[:2]]
    result = model.scores([Tree(prompts[0], ids[:2]), Tree(prompts[1], ids[2:])])
    expected = model.score_texts([PROMPTS[0], PROMPTS[0], PROMPTS[1]], RESPONSES[:3])
    assert result.sums().tolist() == pytest.approx(expected, abs=1e-5)
    assert result.counts.tolist() == [len(each) for each in ids]
    with pytest.raises(OptionError, match="needs a policy"):
        model.scores([Tree(prompts[0], ids)], keep_hidden=True)


def test_end_token_counts_where_padding_is_another_token(backbone: Backbone) -> None:
    model = moved(loaded(backbone("llama")))
    prompt, (ids,) = model.encode_prompt(PROMPTS[0]), model.encode_responses(RESPONSES[:1])
    ended, cut = model.scores([Tree(prompt, [ids, ids[:-1]])]).values.tolist()
    assert abs(ended - cut) > 1e-3


@pytest.mark.parametrize("name", ["llama", "bert"])
def test_texts_beyond_the_context_are_cut_and_an_encoder_keeps_its_marks(name: str, backbone: Backbone) -> None:
    model = loaded(backbone(name))
    (encoded,) = model.encode([PROMPTS[0] * 100], [RESPONSES[0] * 100])
    assert encoded.is_cut and len(encoded.prompt) + len(encoded.response) == model.context_length
    assert not model.encode(PROMPTS[:1], RESPONSES[:1])[0].is_cut
    seen: dict[str, torch.Tensor] = {}
    model.base.register_forward_pre_hook(lambda _, args, given: seen.update(given), with_kwargs=True)
    (score,) = padded(model, [Tree(encoded.prompt, [encoded.response])]).tolist()
    assert score == pytest.approx(model.score_encoded([encoded])[0], abs=1e-4)
    if name == "bert":
        ids = seen["input_ids"][0]
        assert (ids[0], ids[-1]) == (model.tokenizer.cls_token_id, model.tokenizer.sep_token_id)


# ----------------------------------------------------------------------------------------------------------------- loading


@every_backbone
def test_fresh_heads_are_fixed_by_the_seed_and_named(name: str, backbone: Backbone) -> None:
    first, second, other = (loaded(backbone(name), seed=seed) for seed in (0, 0, 1))
    head = "score" if name in DECODERS else "classifier"
    assert any(module.startswith(head) for module in first.fresh_modules)
    assert first.score_texts(PROMPTS, RESPONSES) == second.score_texts(PROMPTS, RESPONSES)
    assert first.score_texts(PROMPTS, RESPONSES) != other.score_texts(PROMPTS, RESPONSES)


@every_backbone
def test_adapters_and_everything_drawn_at_random_survive_saving(name: str, backbone: Backbone, tmp_path: Path) -> None:
    model = loaded(backbone(name), lora=LoraOptions(rank=2), seed=3)
    whole = [key for key, value in model.model.named_parameters() if value.requires_grad and "lora_" not in key]
    for module in model.fresh_modules:
        assert any(module.partition(".")[0] in key for key in whole), module
    scores = moved(model).score_texts(PROMPTS, RESPONSES)
    again = loaded(model.save(tmp_path / "adapter"), seed=4)
    assert again.has_adapters and not again.fresh_modules
    assert again.score_texts(PROMPTS, RESPONSES) == pytest.approx(scores, abs=1e-6)


def test_saved_adapters_score_the_same_by_peft_alone(backbone: Backbone, tmp_path: Path) -> None:
    from peft import AutoPeftModelForSequenceClassification

    model = moved(loaded(backbone("llama"), lora=LoraOptions(rank=2)))
    folder = model.save(tmp_path / "adapter")
    theirs = AutoPeftModelForSequenceClassification.from_pretrained(folder, num_labels=1)
    theirs.config.pad_token_id = model.tokenizer.pad_token_id
    ids = model.encode_prompt(PROMPTS[0]) + model.encode_response(RESPONSES[0])
    with torch.no_grad():
        score = theirs(input_ids=torch.tensor([ids])).logits.item()
    assert score == pytest.approx(model.score_texts(PROMPTS[:1], RESPONSES[:1])[0], abs=1e-4)


def test_padding_gets_a_token_of_its_own_where_there_is_one_to_spare(backbone: Backbone, tmp_path: Path) -> None:
    policy = Policy.load(backbone("llama"), device="cpu")
    policy.tokenizer.pad_token = policy.tokenizer.eos_token
    model = loaded(policy.save(tmp_path / "padded-with-end"))
    assert model.tokenizer.pad_token == "<pad>"
    assert model.base.config.pad_token_id == model.tokenizer.pad_token_id != model.tokenizer.eos_token_id


def test_padding_with_the_end_token_reads_where_transformers_does(backbone: Backbone, tmp_path: Path) -> None:
    model = moved(loaded(backbone("llama")))
    model.tokenizer.pad_token = model.tokenizer.eos_token
    model.base.config.pad_token_id = model.tokenizer.eos_token_id
    folder = model.save(tmp_path / "model")
    again = loaded(folder)
    assert "before the end" in again.method_note()
    assert again.score_texts(PROMPTS, RESPONSES) == pytest.approx(plain_scores(folder, PROMPTS, RESPONSES), abs=1e-4)
    only_end = again.scores([Tree(again.encode_prompt("A"), [[again.tokenizer.eos_token_id]])]).values
    assert only_end.isfinite().all()


def test_a_model_with_two_outputs_is_refused(backbone: Backbone, tmp_path: Path) -> None:
    two = AutoModelForSequenceClassification.from_pretrained(backbone("llama"), num_labels=2)
    two.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(backbone("llama")).save_pretrained(tmp_path)
    for load in (loaded, lambda folder: load_reward(str(folder))):
        with pytest.raises(ModelError, match=r"gives 2 numbers a text, a reward model gives one; .*FILE\.py:function"):
            load(tmp_path)


def test_an_adapter_for_text_is_refused(backbone: Backbone, tmp_path: Path) -> None:
    Policy.load(backbone("llama"), lora=LoraOptions(rank=2), device="cpu").save(tmp_path / "adapter")
    with pytest.raises(ModelError, match=r"adapter for generating text .CAUSAL_LM., not for a reward model; merge it"):
        loaded(tmp_path / "adapter")


def test_an_encoder_decoder_is_refused(encoder_decoder: Policy, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is an encoder-decoder; a reward model is made from an encoder"):
        loaded(encoder_decoder.save(tmp_path / "t5"))


def test_a_folder_without_its_head_is_damaged(backbone: Backbone, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = loaded(backbone("llama")).save(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    del weights["score.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="damaged or incomplete: it has no weights for score"):
        loaded(folder)


# ------------------------------------------------------------------------------------------------------------------- scale


@pytest.mark.parametrize("name", ["llama", "bloom", "bert"])
def test_starting_on_the_scale_of_data_is_one_linear_map(name: str, backbone: Backbone, tmp_path: Path) -> None:
    model = loaded(backbone(name))
    before = torch.tensor(model.score_texts(PROMPTS, RESPONSES))
    encoded = model.encode(PROMPTS, RESPONSES)
    model.start_on_scale(50.0, 3.0, [Tree(each.prompt, [each.response]) for each in encoded])
    after = torch.tensor(model.score_texts(PROMPTS, RESPONSES))
    if name == "bert":  # its head has a bias, which takes the mean
        assert torch.allclose(after, 50 + 3 * before, atol=1e-4)
    else:
        assert after.mean().item() == pytest.approx(50 + 3 * before.mean().item(), abs=1.0)
    folder = model.save(tmp_path / "model")
    assert plain_scores(folder, PROMPTS, RESPONSES) == pytest.approx(after.tolist(), abs=1e-3)


# ------------------------------------------------------------------------------------------------------------------ reward


@pytest.mark.parametrize("name", ["llama", "bert"])
def test_load_reward_takes_a_folder_or_a_run_folder(name: str, backbone: Backbone, tmp_path: Path) -> None:
    model = moved(loaded(backbone(name)))
    model.save(tmp_path / "run" / "model")
    for folder in (tmp_path / "run", tmp_path / "run" / "model"):
        reward = load_reward(str(folder), device="cpu")
        assert reward.name == str(folder)
        assert reward(PROMPTS, RESPONSES) == pytest.approx(model.score_texts(PROMPTS, RESPONSES), abs=1e-5)
        assert reward([], []) == []
    with pytest.raises(RewardError, match="got 1 prompts and 2 responses"):
        reward(["a"], ["b", "c"])


def test_a_language_model_is_no_reward(backbone: Backbone) -> None:
    with pytest.raises(
        ModelError, match=r"without a trained reward head .score., so its rewards would be random; train"
    ):
        load_reward(str(backbone("llama")))


def test_what_is_neither_name_file_nor_folder_is_unknown() -> None:
    with pytest.raises(OptionError, match=r"unknown reward 'sentimental' .did you mean 'sentiment'.*Hub id"):
        load_reward("sentimental")


def test_messages_go_through_the_models_own_template(backbone: Backbone) -> None:
    model = moved(loaded(backbone("llama")))
    model.tokenizer.chat_template = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    chat = (
        {"role": "user", "content": "Well?"},
        {"role": "assistant", "content": "No."},
        {"role": "user", "content": "So"},
    )
    reward = ModelReward("r", model)
    assert reward([chat], ["Yes"]) == reward(["<user>Well?<assistant>No.<user>So"], ["Yes"])
    assert ModelReward("r", model, wraps_texts=True)(["So"], ["Yes"]) == reward(["<user>So"], ["Yes"])


def test_messages_for_a_decoder_without_template_are_one_clear_line(backbone: Backbone) -> None:
    model = loaded(backbone("llama"))
    model.tokenizer.chat_template = None
    with pytest.raises(ModelError, match=r"reward model .* has no chat template .* chat_template\.jinja") as caught:
        ModelReward("r", model)([({"role": "user", "content": "hi"},)], ["ho"])
    assert "\n" not in str(caught.value)


def test_an_encoder_reads_messages_as_plain_text(backbone: Backbone) -> None:
    reward = ModelReward("r", moved(loaded(backbone("bert"))))
    assert reward([({"role": "user", "content": "hi"},)], ["ho"]) == reward(["user: hi"], ["ho"])


@pytest.mark.parametrize(("format", "wraps"), [("plain", False), ("chat", True)])
def test_strings_are_user_messages_where_training_rows_were_chats(
    format: str, wraps: bool, backbone: Backbone, tmp_path: Path
) -> None:
    moved(loaded(backbone("llama"))).save(tmp_path / "model")
    (tmp_path / "results.json").write_text(json.dumps({"data": {"format": format}}))
    for folder in (tmp_path, tmp_path / "model"):
        reward = load_reward(str(folder), device="cpu")
        assert isinstance(reward, ModelReward) and reward.wraps_texts is wraps


def test_a_reward_that_is_not_finite_is_named(backbone: Backbone) -> None:
    model = loaded(backbone("llama"))
    with torch.no_grad():
        model.base.score.weight.fill_(float("nan"))  # type: ignore[union-attr,operator]
    with pytest.raises(RewardError, match=r"expected a finite number; got nan for response 1 \('ho'\)"):
        ModelReward("r", model)(["hi"], ["ho"])
