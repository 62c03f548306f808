"""The divergence over the whole vocabulary is the plain one, value and gradient; features are means over what was read."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from paperworks.core.errors import ModelError
from paperworks.language.data import Dataset, Demonstration
from paperworks.language.items import Item, tokenise
from paperworks.language.logprobs import TokenLogps, Tree, token_logps
from paperworks.language.policy import LoraOptions, Policy
from paperworks.language.reference_scores import hidden_states
from paperworks.language.vocabulary import VocabularyHead, vocabulary_kl

TOKENS, WIDTH, VOCABULARY = 7, 5, 11


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def plain_kl(hidden: Tensor, head: VocabularyHead, fixed: Tensor, fixed_head: VocabularyHead) -> Tensor:
    """KL(fixed || hidden) a token, with every [tokens, vocabulary] tensor at once."""
    log_p = functional.linear(fixed, fixed_head.weight, fixed_head.bias).log_softmax(-1)
    log_q = functional.linear(hidden, head.weight, head.bias).log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


@pytest.mark.parametrize("chunk", [1, 3, 7, 1000], ids="{} tokens a chunk".format)
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize(
    "trains", [(), ("hidden",), ("weight",), ("bias",), ("hidden", "weight", "bias")], ids="+".join
)
def test_value_and_gradients_are_those_of_log_softmax(trains: tuple[str, ...], with_bias: bool, chunk: int) -> None:
    hidden = drawn(TOKENS, WIDTH, seed=0).requires_grad_("hidden" in trains)
    weight = drawn(VOCABULARY, WIDTH, seed=1).requires_grad_("weight" in trains)
    bias = drawn(VOCABULARY, seed=2).requires_grad_("bias" in trains) if with_bias else None
    fixed, fixed_head = drawn(TOKENS, WIDTH, seed=3), VocabularyHead(drawn(VOCABULARY, WIDTH, seed=4))
    head, scale = VocabularyHead(weight, bias), drawn(TOKENS, seed=5)
    wanted_from = [part for part in (hidden, weight, bias) if part is not None and part.requires_grad]

    plain = plain_kl(hidden, head, fixed, fixed_head)
    ours = vocabulary_kl(hidden, head, fixed, fixed_head, chunk_bytes=chunk * 8 * VOCABULARY)
    torch.testing.assert_close(ours, plain)
    assert ours.dtype == torch.float32 and (ours > 0).all()
    if not wanted_from:
        assert not ours.requires_grad
        return
    wanted = torch.autograd.grad((plain * scale).sum(), wanted_from)
    found = torch.autograd.grad((ours * scale).sum(), wanted_from)
    for f, w in zip(found, wanted, strict=True):
        torch.testing.assert_close(f, w, atol=1e-5, rtol=1e-4)


def test_it_is_zero_with_zero_gradient_against_itself() -> None:
    hidden = drawn(TOKENS, WIDTH, seed=0).requires_grad_()
    head = VocabularyHead(drawn(VOCABULARY, WIDTH, seed=1), drawn(VOCABULARY, seed=2))
    divergence = vocabulary_kl(hidden, head, hidden.detach(), head)
    (gradient,) = torch.autograd.grad(divergence.sum(), hidden)
    assert torch.equal(divergence, torch.zeros(TOKENS))
    assert torch.equal(gradient, torch.zeros_like(hidden))


def test_no_tokens_are_no_error() -> None:
    head = VocabularyHead(drawn(VOCABULARY, WIDTH, seed=1))
    hidden = torch.zeros(0, WIDTH, requires_grad=True)
    divergence = vocabulary_kl(hidden, head, torch.zeros(0, WIDTH), head)
    divergence.sum().backward()
    assert divergence.shape == (0,) and hidden.grad is not None and hidden.grad.shape == (0, WIDTH)


def test_low_precision_states_give_a_float32_divergence() -> None:
    hidden, fixed = drawn(TOKENS, WIDTH, seed=0), drawn(TOKENS, WIDTH, seed=3)
    head = VocabularyHead(drawn(VOCABULARY, WIDTH, seed=1).bfloat16())
    rounded = vocabulary_kl(hidden.bfloat16(), head, fixed.bfloat16(), head)
    assert rounded.dtype == torch.float32
    exact = VocabularyHead(head.weight.float())
    torch.testing.assert_close(rounded, plain_kl(hidden, exact, fixed, exact), atol=0.1, rtol=0.1)


def test_of_a_model_it_is_that_of_its_logits(any_decoder: Policy) -> None:
    """Value and the gradient of every parameter, the vocabulary matrix among them, tied or not."""
    model, start = copy.deepcopy(any_decoder.model), any_decoder
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter += 0.05 * drawn(*parameter.shape, seed=number)
    tree = Tree([5, 6, 7], [[8, 9, 10, 11]])
    at = slice(2, 6)  # the positions that predict the response
    ids = torch.tensor([[*tree.prompt, *tree.responses[0]]])
    with torch.no_grad():
        log_p = start.model(ids).logits[0, at].log_softmax(-1)
    log_q = model(ids).logits[0, at].log_softmax(-1)
    plain = (log_p.exp() * (log_p - log_q)).sum(-1)
    parameters = dict(model.named_parameters())
    wanted = torch.autograd.grad(plain.sum(), list(parameters.values()))

    known = start.token_logps([tree], keep_hidden=True).hidden
    hidden = token_logps(model, [tree], keep_hidden=True).hidden
    assert known is not None and hidden is not None
    ours = vocabulary_kl(hidden, VocabularyHead.of(model), known, VocabularyHead.of(start.model))
    found = torch.autograd.grad(ours.sum(), list(parameters.values()))
    torch.testing.assert_close(ours, plain, atol=1e-4, rtol=1e-4)
    for name, f, w in zip(parameters, found, wanted, strict=True):
        torch.testing.assert_close(f, w, atol=2e-4, rtol=1e-3, msg=name)


def test_a_frozen_head_stays_when_its_model_trains(small_policy: Policy) -> None:
    alive, frozen = VocabularyHead.of(small_policy.model), VocabularyHead.of(small_policy.model).frozen()
    before = alive.weight.detach().clone()
    with torch.no_grad():
        alive.weight.add_(1.0)
    assert torch.equal(frozen.weight, before) and not frozen.weight.requires_grad
    assert torch.equal(VocabularyHead.of(small_policy.model).weight, before + 1.0)


def test_the_head_of_adapters_is_not_copied(small_policy: Policy) -> None:
    adapted = small_policy.with_lora(LoraOptions(rank=2, targets="q_proj,v_proj"))
    head = VocabularyHead.of(adapted.model)
    assert not head.weight.requires_grad and head.frozen() is head


# ------------------------------------------------------------------------------------------- what the reference remembers


def items_of(policy: Policy, count: int) -> list[Item]:
    rows = [Demonstration(f"Number {n}", " and so on" * (1 + n % 3)) for n in range(count)]
    return list(tokenise(Dataset(tuple(rows)), policy, ("response",)).items)


@pytest.mark.parametrize("most_tokens", [1, 40, 4096])
def test_reference_states_are_those_of_each_row_alone(small_policy: Policy, most_tokens: int) -> None:
    items = items_of(small_policy, 5)
    states = hidden_states(small_policy, items, ("response",), [4, 0, 2, 0], most_tokens=most_tokens)["response"]
    assert [part is None for part in states] == [False, True, False, True, False]
    for row in (0, 2, 4):
        alone = small_policy.token_logps([items[row].tree()], keep_hidden=True).hidden
        assert alone is not None and states[row] is not None
        torch.testing.assert_close(states[row], alone, atol=1e-5, rtol=1e-4)


def test_models_scored_by_the_padded_path_are_refused(encoder_decoder: Policy) -> None:
    with pytest.raises(ModelError, match="divergence over the whole vocabulary needs a decoder"):
        hidden_states(encoder_decoder, items_of(encoder_decoder, 1), ("response",), [0])


# --------------------------------------------------------------------------------------------------------------- features


def some_trees(vocabulary: int, seed: int) -> list[Tree]:
    draw = random.Random(seed)

    def ids(low: int, high: int) -> list[int]:
        return [draw.randrange(2, vocabulary) for _ in range(draw.randint(low, high))]

    return [Tree(ids(1, 12), [ids(1, 9) for _ in range(draw.randint(1, 3))]) for _ in range(4)]


def states_of(policy: Policy, tokens: list[int]) -> Tensor:
    """Last hidden states of a row by the model's own forward."""
    with torch.no_grad():
        output = policy.model(torch.tensor([tokens]), output_hidden_states=True)
    return output.hidden_states[-1][0]


def features(policy: Policy, trees: list[Tree], method: str = "packed") -> Tensor:
    with torch.no_grad():
        return token_logps(policy.model, trees, method=method, keep_hidden=True).features()  # type: ignore[arg-type]


def test_features_are_the_mean_state_over_the_response_but_its_end(any_decoder: Policy) -> None:
    prompt, response = [5, 6, 7], [8, 9, 10, 11]
    states = states_of(any_decoder, [*prompt, *response[:-1]])
    (found,) = features(any_decoder, [Tree(prompt, [response])])
    torch.testing.assert_close(found, states[3:].mean(0), atol=1e-4, rtol=1e-4)
    (other,) = features(any_decoder, [Tree(prompt, [[*response[:-1], 40]])])
    torch.testing.assert_close(other, found)  # the last token is predicted, never read


def test_a_response_of_the_end_alone_has_the_prompts_state(any_decoder: Policy) -> None:
    prompt, end = [5, 6, 7], any_decoder.tokenizer.eos_token_id
    first, alone, last = features(any_decoder, [Tree(prompt, [[8, 9, end], [end], [10, end]])])
    torch.testing.assert_close(alone, states_of(any_decoder, prompt)[-1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(last, states_of(any_decoder, [*prompt, 10])[-1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(first, states_of(any_decoder, [*prompt, 8, 9])[-2:].mean(0), atol=1e-4, rtol=1e-4)


def test_packed_features_are_the_padded_ones(any_decoder: Policy) -> None:
    trees = some_trees(len(any_decoder.tokenizer), seed=1)
    torch.testing.assert_close(
        features(any_decoder, trees), features(any_decoder, trees, "padded"), atol=1e-4, rtol=1e-4
    )


def test_features_do_not_depend_on_company_or_order(any_decoder: Policy) -> None:
    trees = some_trees(len(any_decoder.tokenizer), seed=2)
    turned = [Tree(tree.prompt, tree.responses[::-1]) for tree in trees[::-1]]
    alone = torch.cat([features(any_decoder, [tree]) for tree in trees])
    torch.testing.assert_close(features(any_decoder, trees), alone, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(features(any_decoder, turned), alone.flip(0), atol=1e-4, rtol=1e-4)


def test_features_carry_the_gradient_of_both_paths_alike(small_policy: Policy) -> None:
    trees, gradients = some_trees(len(small_policy.tokenizer), seed=3), []
    for method in ("packed", "padded"):
        small_policy.model.zero_grad()
        found = token_logps(small_policy.model, trees, method=method, keep_hidden=True).features()  # type: ignore[arg-type]
        (found * drawn(*found.shape, seed=0)).sum().backward()
        gradients.append({n: p.grad.clone() for n, p in small_policy.model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=2e-4, rtol=1e-3, msg=name)


def test_features_are_float32_means_of_low_precision_states() -> None:
    hidden = torch.tensor([[1.0], [256.0], [257.0], [7.0]]).bfloat16()  # 257 is 256 or 258 in bfloat16
    scores = TokenLogps(torch.zeros(4), torch.tensor([0, 0, 0, 1]), torch.tensor([3.0, 1.0]), hidden)
    assert scores.features().dtype == torch.float32
    assert scores.features().tolist() == [[float(hidden[1:3].float().mean())], [7.0]]


def test_an_encoder_decoder_keeps_the_decoders_states(encoder_decoder: Policy) -> None:
    trees = some_trees(len(encoder_decoder.tokenizer), seed=4)
    scored = encoder_decoder.token_logps(trees, keep_hidden=True)
    assert scored.hidden is not None and scored.hidden.shape[0] == int(scored.counts.sum())
    at = 0
    for tree in trees:
        for response in tree.responses:
            start: int = encoder_decoder.base.config.decoder_start_token_id  # type: ignore[assignment]
            with torch.no_grad():
                output = encoder_decoder.model(
                    input_ids=torch.tensor([tree.prompt]),
                    decoder_input_ids=torch.tensor([[start, *response[:-1]]]),
                    output_hidden_states=True,
                )
            states = output.decoder_hidden_states[-1][0]
            torch.testing.assert_close(scored.hidden[at : at + len(response)], states, atol=1e-4, rtol=1e-4)
            at += len(response)
    assert encoder_decoder.token_logps(trees).hidden is None
