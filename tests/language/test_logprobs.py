"""The packed log-probabilities are the padded ones, value and gradient, on every architecture that packs."""

from __future__ import annotations

import random

import pytest
import torch

from paperworks.language import logprobs
from paperworks.language.logprobs import Tree, selected_logprob, token_logps
from paperworks.language.policy import LoraOptions, Policy


def some_trees(vocabulary: int, seed: int = 0, trees: int = 3) -> list[Tree]:
    draw = random.Random(seed)

    def ids(low: int, high: int) -> list[int]:
        return [draw.randrange(2, vocabulary) for _ in range(draw.randint(low, high))]

    return [Tree(ids(1, 12), [ids(1, 9) for _ in range(draw.randint(1, 3))]) for _ in range(trees)]


def gradients(
    policy: Policy, trees: list[Tree], method: logprobs.Method
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    policy.model.zero_grad()
    sums = token_logps(policy.model, trees, method=method).sums()
    (sums * torch.arange(1.0, len(sums) + 1)).sum().backward()
    return sums.detach(), {n: p.grad.clone() for n, p in policy.model.named_parameters() if p.grad is not None}


def test_packed_equals_padded_in_value_and_gradient(any_decoder: Policy) -> None:
    assert any_decoder.method == "packed", any_decoder.method_note()
    trees = some_trees(len(any_decoder.tokenizer))
    packed, packed_gradients = gradients(any_decoder, trees, "packed")
    padded, padded_gradients = gradients(any_decoder, trees, "padded")
    torch.testing.assert_close(packed, padded, atol=1e-4, rtol=1e-5)
    assert packed_gradients.keys() == padded_gradients.keys()
    for name, gradient in packed_gradients.items():
        torch.testing.assert_close(gradient, padded_gradients[name], atol=2e-4, rtol=1e-3, msg=name)


def test_a_temperature_divides_the_logits(any_decoder: Policy) -> None:
    tree = some_trees(len(any_decoder.tokenizer), trees=1)[0]
    prompt, response = tree.prompt, tree.responses[0]
    with torch.no_grad():
        logits = any_decoder.model(input_ids=torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1]
        wanted = (logits / 0.5).log_softmax(-1).gather(1, torch.tensor(response)[:, None]).squeeze(1)
        for method in ("packed", "padded"):
            found = token_logps(any_decoder.model, [Tree(prompt, [response])], method=method, temperature=0.5)
            torch.testing.assert_close(found.values, wanted, atol=1e-4, rtol=1e-5)
    acting = any_decoder.at_temperature(0.5)
    torch.testing.assert_close(acting.token_logps([Tree(prompt, [response])]).values, wanted, atol=1e-4, rtol=1e-5)
    assert (any_decoder.temperature, acting.reference().temperature) == (1.0, 0.5)


def test_scores_do_not_depend_on_company_or_order(any_decoder: Policy) -> None:
    trees = some_trees(len(any_decoder.tokenizer), seed=1, trees=4)
    together = any_decoder.token_logps(trees).sums()
    alone = torch.cat([any_decoder.token_logps([tree]).sums() for tree in trees])
    backwards = torch.cat(
        [
            any_decoder.token_logps(trees[::-1]).sums().split([len(t.responses) for t in trees[::-1]])[i]
            for i in range(3, -1, -1)
        ]
    )
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together, backwards, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_padding_side_does_not_matter(any_decoder: Policy, padding_side: str) -> None:
    trees = some_trees(len(any_decoder.tokenizer), seed=2)
    with torch.no_grad():
        padded = token_logps(any_decoder.model, trees, method="padded", padding_side=padding_side).sums()
    torch.testing.assert_close(any_decoder.token_logps(trees).sums(), padded, atol=1e-4, rtol=1e-5)


def test_encoder_decoder_rows_do_not_depend_on_padding(encoder_decoder: Policy) -> None:
    assert encoder_decoder.method == "padded"
    trees = some_trees(len(encoder_decoder.tokenizer), seed=3)
    together = encoder_decoder.token_logps(trees).sums()
    alone = torch.cat([encoder_decoder.token_logps([Tree(t.prompt, [r])]).sums() for t in trees for r in t.responses])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_encoder_decoder_scores_are_the_models_own_loss(encoder_decoder: Policy) -> None:
    tree = some_trees(len(encoder_decoder.tokenizer), seed=4, trees=1)[0]
    with torch.no_grad():
        loss = encoder_decoder.model(
            input_ids=torch.tensor([tree.prompt]), labels=torch.tensor([tree.responses[0]])
        ).loss
    own = encoder_decoder.token_logps([Tree(tree.prompt, tree.responses[:1])]).sums()
    torch.testing.assert_close(own, -loss[None] * len(tree.responses[0]), atol=1e-4, rtol=1e-5)


def test_prompt_tokens_are_not_scored_but_condition(any_decoder: Policy) -> None:
    tree = Tree([5, 6, 7], [[8, 9]])
    scored = any_decoder.token_logps([tree])
    assert scored.counts.tolist() == [2.0]
    other = any_decoder.token_logps([Tree([5, 60, 7], [[8, 9]])])
    assert not torch.allclose(scored.sums(), other.sums())


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("with_bias", [True, False])
def test_selected_logprob_is_log_softmax(frozen: bool, with_bias: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(7, 5, generator=draw, requires_grad=True)
    weight = torch.randn(11, 5, generator=draw, requires_grad=not frozen)
    bias = torch.randn(11, generator=draw, requires_grad=not frozen) if with_bias else None
    targets = torch.randint(0, 11, (7,), generator=draw)
    scale = torch.randn(7, generator=draw)
    wanted_from = [t for t in (hidden, weight, bias) if t is not None and t.requires_grad]

    plain = torch.nn.functional.linear(hidden, weight, bias).log_softmax(-1).gather(1, targets[:, None]).squeeze(1)
    wanted = torch.autograd.grad((plain * scale).sum(), wanted_from)
    ours = selected_logprob(hidden, weight, targets, bias, chunk_bytes=3 * 4 * 11)  # chunks of 3 of 7 tokens
    found = torch.autograd.grad((ours * scale).sum(), wanted_from)
    torch.testing.assert_close(ours, plain)
    for f, w in zip(found, wanted, strict=True):
        torch.testing.assert_close(f, w)


def test_autocast_rounds_but_does_not_change_the_gradient(any_decoder: Policy) -> None:
    trees = some_trees(len(any_decoder.tokenizer), seed=8)
    exact, gradient = gradients(any_decoder, trees, "packed")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded, rounded_gradient = gradients(any_decoder, trees, "packed")
    torch.testing.assert_close(rounded, exact, atol=0.2, rtol=0.01)
    for name, value in gradient.items():
        assert (value - rounded_gradient[name]).norm() <= 0.05 * value.norm() + 1e-3, name


def test_gradient_checkpointing_and_lora_change_nothing(any_decoder: Policy) -> None:
    import copy

    trees = some_trees(len(any_decoder.tokenizer), seed=5)
    policy = Policy(copy.deepcopy(any_decoder.model), any_decoder.tokenizer)
    before, plain = gradients(policy, trees, policy.method)
    policy.model.activation_checkpointing_enable()
    policy.model.train()
    again, checkpointed = gradients(policy, trees, policy.method)
    policy.model.activation_checkpointing_disable()
    torch.testing.assert_close(before, again)
    for name in plain:
        torch.testing.assert_close(plain[name], checkpointed[name], atol=1e-5, rtol=1e-4)
    adapted = policy.with_lora(LoraOptions(rank=2))
    torch.testing.assert_close(adapted.token_logps(trees).sums(), before, atol=1e-5, rtol=1e-5)


def test_lora_reference_is_the_same_weights_with_adapters_off(small_policy: Policy) -> None:
    trees = some_trees(len(small_policy.tokenizer), seed=6)
    before = small_policy.token_logps(trees).sums()
    adapted = small_policy.with_lora(LoraOptions(rank=2))
    reference = adapted.reference()
    assert reference.model is adapted.model
    with torch.no_grad():
        for name, parameter in adapted.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    assert not torch.allclose(adapted.token_logps(trees).sums(), before, atol=1e-3)
    torch.testing.assert_close(reference.token_logps(trees).sums(), before, atol=1e-5, rtol=1e-5)


def test_an_architecture_that_cannot_pack_falls_back_and_says_so(tokenizer: object) -> None:
    from transformers import BloomConfig, BloomForCausalLM

    torch.manual_seed(0)
    model = BloomForCausalLM(BloomConfig(vocab_size=len(tokenizer), hidden_size=32, n_layer=2, n_head=4)).eval()  # type: ignore[arg-type]
    policy = Policy(model, tokenizer, name="bloom")  # type: ignore[arg-type]
    assert policy.method == "padded"
    assert "padded path" in policy.method_note()
    trees = some_trees(len(tokenizer), seed=7)  # type: ignore[arg-type]
    assert policy.token_logps(trees).sums().shape == (sum(len(t.responses) for t in trees),)
