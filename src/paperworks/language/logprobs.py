"""Hot path 1: the summed log-probability of each response given its prompt.

A *tree* is one prompt with all its responses. The packed path computes a prompt once for all its responses (position ids
and a tree mask), lays the trees out one after another with next to no padding, and lets only the positions that predict a
response token meet the vocabulary matrix, in chunks, so that no [tokens, vocabulary] tensor survives the forward pass.
The padded path is the plain computation: right-padded rows through the model's own forward. It is what the packed path is
checked against, and what runs for encoder-decoder models and for architectures whose attention takes no custom mask.

Knows nothing of text, objectives or devices of others: token ids in, log-probabilities out.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from paperworks.language.vocabulary import VocabularyHead, selected_logprob, unwrapped

Method = Literal["packed", "padded"]
ATTENTION = "paperworks"  # the name our attention is registered under with transformers


@dataclass(frozen=True)
class Tree:
    """One prompt (at least one token) and the responses to it (each at least one token)."""

    prompt: Sequence[int]
    responses: Sequence[Sequence[int]]


@dataclass(frozen=True)
class TokenLogps:
    """Log-probability of every response token, responses in tree order, one after another."""

    values: Float[Tensor, " tokens"]
    response: Int[Tensor, " tokens"]  # which response each token belongs to
    counts: Float[Tensor, " responses"]  # tokens of each response
    hidden: Float[Tensor, "tokens width"] | None = None  # last hidden states from which the tokens are predicted

    def sums(self) -> Float[Tensor, " responses"]:
        """log pi(y|x): the sum over each response's tokens."""
        return self.summed(self.values)

    def summed(self, values: Float[Tensor, " tokens"]) -> Float[Tensor, " responses"]:
        """The sum of any token values over each response."""
        return torch.zeros_like(self.counts).index_add(0, self.response, values.to(self.counts.dtype))

    def features(self) -> Float[Tensor, "responses width"]:
        """Mean of the last hidden states at each response's tokens, float32; needs `hidden`.

        The end token is never an input, so that a response of the end token alone has the state of the prompt's end.
        """
        assert self.hidden is not None
        first = torch.ones_like(self.response, dtype=torch.bool)
        first[1:] = self.response[1:] != self.response[:-1]
        inside = (~first | (self.counts == 1)[self.response]).float()
        totals = self.hidden.new_zeros(len(self.counts), self.hidden.shape[1], dtype=torch.float32)
        totals = totals.index_add(0, self.response, self.hidden.float() * inside[:, None])
        return totals / self.summed(inside)[:, None]


# ---------------------------------------------------------------------------------------------------------------- packed


@dataclass(frozen=True)
class Block:
    """Trees padded to one length, so that their attention is one batched call."""

    trees: int
    length: int
    mask: Tensor | None  # [trees, 1, length, length], True where a position may look; None when plainly causal


@dataclass(frozen=True)
class Layout:
    """Where everything lies in the packed row. `blocks` follow one another; a block is `trees` rows of `length`."""

    input_ids: Int[Tensor, "1 positions"]
    position_ids: Int[Tensor, "1 positions"]
    blocks: tuple[Block, ...]
    predictors: Int[Tensor, " tokens"]  # the position whose hidden state predicts each response token
    targets: Int[Tensor, " tokens"]
    response: Int[Tensor, " tokens"]
    counts: Int[Tensor, " responses"]


def lay_out(trees: Sequence[Tree], *, device: torch.device, padding_allowed: int = 0) -> Layout:
    """Pack trees into one row. A tree joins a block while that costs at most `padding_allowed` padding positions.

    The last token of a response is never an input: nothing is predicted from it.
    """
    lengths = [len(tree.prompt) + sum(len(response) - 1 for response in tree.responses) for tree in trees]
    order = sorted(range(len(trees)), key=lambda i: -lengths[i])
    groups: list[list[int]] = []
    for i in order:
        if groups and lengths[groups[-1][0]] - lengths[i] <= padding_allowed:
            groups[-1].append(i)
        else:
            groups.append([i])
    first_response = [0]
    for tree in trees:
        first_response.append(first_response[-1] + len(tree.responses))

    ids: list[int] = []
    positions: list[int] = []
    blocks: list[Block] = []
    predictors: list[list[int]] = [[] for _ in range(first_response[-1])]  # by response
    for group in groups:
        length = lengths[group[0]]
        branching = any(len(trees[i].responses) > 1 for i in group)
        segments = torch.zeros(len(group), length, dtype=torch.int32) if branching else None
        for row, i in enumerate(group):
            tree, start, depth = trees[i], len(ids), len(trees[i].prompt)
            ids.extend(tree.prompt)
            positions.extend(range(depth))
            for branch, response in enumerate(tree.responses):
                begin, inputs = len(ids), len(response) - 1
                ids.extend(response[:-1])
                positions.extend(range(depth, depth + inputs))
                predictors[first_response[i] + branch] = [start + depth - 1, *range(begin, begin + inputs)]
                if segments is not None:
                    segments[row, begin - start : begin - start + inputs] = branch + 1
            padding = length - lengths[i]
            ids.extend([tree.prompt[0]] * padding)
            positions.extend([0] * padding)
        blocks.append(Block(len(group), length, None if segments is None else _tree_mask(segments).to(device)))

    counts = torch.tensor([len(of_response) for of_response in predictors], device=device)
    return Layout(
        input_ids=torch.tensor([ids], device=device),
        position_ids=torch.tensor([positions], device=device),
        blocks=tuple(blocks),
        predictors=torch.tensor(list(itertools.chain.from_iterable(predictors)), device=device),
        targets=torch.tensor(
            [token for tree in trees for response in tree.responses for token in response], device=device
        ),
        response=torch.arange(len(predictors), device=device).repeat_interleave(counts),
        counts=counts,
    )


def _tree_mask(segments: Int[Tensor, "trees length"]) -> Bool[Tensor, "trees 1 length length"]:
    """Where a position may look: back to its prompt (segment 0) and to its own response, never to another."""
    causal = torch.ones(segments.shape[1], segments.shape[1], dtype=torch.bool).tril()
    of_prompt = (segments == 0)[:, None, :]
    return (causal & (of_prompt | (segments[:, :, None] == segments[:, None, :])))[:, None]


def _grouped_attention(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
    """Scaled dot-product attention where several query heads may share a key head."""
    if query.shape[1] != key.shape[1]:
        repeats = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    return functional.scaled_dot_product_attention(query, key, value, **options)


def packed_attention(
    query: Float[Tensor, "1 heads positions dim"],
    key: Float[Tensor, "1 kv_heads positions dim"],
    value: Float[Tensor, "1 kv_heads positions dim"],
    blocks: Sequence[Block],
    *,
    scaling: float | None,
    dropout: float = 0.0,
) -> Float[Tensor, "1 positions heads dim"]:
    """Attention within each tree of a packed row; a response sees its prompt and itself, never its siblings."""
    sizes = [block.trees * block.length for block in blocks]
    outputs = []
    for block, *parts in zip(blocks, query.split(sizes, 2), key.split(sizes, 2), value.split(sizes, 2), strict=True):
        q, k, v = (
            part.unflatten(2, (block.trees, block.length)).squeeze(0).transpose(0, 1)  # [trees, heads, length, dim]
            for part in parts
        )
        out = _grouped_attention(
            q, k, v, attn_mask=block.mask, is_causal=block.mask is None, scale=scaling, dropout_p=dropout
        )
        outputs.append(out.transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs)[None]


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    packed_blocks: Sequence[Block] | None = None,
    decode_state: Any | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """What transformers calls in every attention layer: ours inside our own forward passes, its own `sdpa` otherwise.

    Extensions that change what attention computes arrive as keyword arguments and are refused, which the self-check
    (`packed_agrees`) turns into the padded path.
    """
    if packed_blocks is None and decode_state is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=is_causal, **others
        )
    for extension in ("softcap", "s_aux"):
        if others.get(extension) is not None:
            raise NotImplementedError(f"attention with {extension} is not packed")
    if packed_blocks is not None:
        if decode_state is not None:
            decode_state.remember(module.layer_idx, key, value)
        return packed_attention(query, key, value, packed_blocks, scaling=scaling, dropout=dropout), None
    assert decode_state is not None
    return decode_state.attend(module.layer_idx, query, key, value, scaling), None


ALL_ATTENTION_FUNCTIONS.register(ATTENTION, _attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, sdpa_mask)


# ---------------------------------------------------------------------------------------------------------------- padded


def _padded_decoder_only(
    model: nn.Module,
    trees: Sequence[Tree],
    device: torch.device,
    padding_side: str,
    keep_hidden: bool,
    temperature: float,
) -> TokenLogps:
    rows = [(tree.prompt, response) for tree in trees for response in tree.responses]
    length = max(len(prompt) + len(response) for prompt, response in rows)
    ids = torch.zeros(len(rows), length, dtype=torch.long, device=device)
    mask = torch.zeros_like(ids)
    starts = []
    for row, (prompt, response) in enumerate(rows):
        size = len(prompt) + len(response)
        start = length - size if padding_side == "left" else 0
        ids[row, start : start + size] = torch.tensor([*prompt, *response], device=device)
        mask[row, start : start + size] = 1
        starts.append(start + len(prompt))
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    output = model(
        input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, output_hidden_states=keep_hidden
    )
    logits = output.logits
    predictors = [
        slice(start - 1, start - 1 + len(response)) for start, (_, response) in zip(starts, rows, strict=True)
    ]
    hidden = (
        torch.cat([output.hidden_states[-1][row, at] for row, at in enumerate(predictors)]) if keep_hidden else None
    )
    values = [
        (logits[row, start - 1 : start - 1 + len(response)].float() / temperature)
        .log_softmax(-1)
        .gather(1, ids[row, start : start + len(response), None])
        .squeeze(1)
        for row, (start, (_, response)) in enumerate(zip(starts, rows, strict=True))
    ]
    return _token_logps(values, hidden)


def _padded_encoder_decoder(
    model: nn.Module, trees: Sequence[Tree], device: torch.device, keep_hidden: bool, temperature: float
) -> TokenLogps:
    """Prompts are encoded once each and shared by their responses; the decoder sees only responses."""
    base = cast(PreTrainedModel, unwrapped(model))
    longest = max(len(tree.prompt) for tree in trees)
    prompts = torch.zeros(len(trees), longest, dtype=torch.long, device=device)
    prompt_mask = torch.zeros_like(prompts)
    for row, tree in enumerate(trees):
        prompts[row, : len(tree.prompt)] = torch.tensor(tree.prompt, device=device)
        prompt_mask[row, : len(tree.prompt)] = 1
    encoded = base.get_encoder()(input_ids=prompts, attention_mask=prompt_mask).last_hidden_state

    responses = [response for tree in trees for response in tree.responses]
    owner = torch.tensor([i for i, tree in enumerate(trees) for _ in tree.responses], device=device)
    longest = max(len(response) for response in responses)
    start_token = base.config.decoder_start_token_id
    inputs = torch.zeros(len(responses), longest, dtype=torch.long, device=device)
    mask = torch.zeros_like(inputs)
    for row, response in enumerate(responses):
        inputs[row, : len(response)] = torch.tensor([start_token, *response[:-1]], device=device)
        mask[row, : len(response)] = 1
    output = model(
        encoder_outputs=(encoded[owner],),
        attention_mask=prompt_mask[owner],
        decoder_input_ids=inputs,
        decoder_attention_mask=mask,
        use_cache=False,
        output_hidden_states=keep_hidden,
    )
    logits = output.logits
    hidden = None
    if keep_hidden:
        states = output.decoder_hidden_states[-1]
        hidden = torch.cat([states[row, : len(response)] for row, response in enumerate(responses)])
    values = [
        (logits[row, : len(response)].float() / temperature)
        .log_softmax(-1)
        .gather(1, torch.tensor(response, device=device)[:, None])
        .squeeze(1)
        for row, response in enumerate(responses)
    ]
    return _token_logps(values, hidden)


def _token_logps(values: list[Tensor], hidden: Tensor | None) -> TokenLogps:
    counts = torch.tensor([len(value) for value in values], device=values[0].device)
    response = torch.arange(len(values), device=counts.device).repeat_interleave(counts)
    return TokenLogps(torch.cat(values), response, counts.float(), hidden)


# ----------------------------------------------------------------------------------------------------------------- front


def padding_worth_a_call(model: nn.Module, device: torch.device) -> int:
    """How many padding positions cost less than one more attention call a layer, by rough counts of both."""
    if device.type != "cpu":
        return 1 << 20
    parameters = sum(p.numel() for p in model.parameters())
    layers = getattr(cast(Any, unwrapped(model)).config, "num_hidden_layers", 12)
    return int(layers * 1.5e-4 / (6 * parameters / 1e11))


def token_logps(
    model: nn.Module,
    trees: Sequence[Tree],
    *,
    method: Method = "packed",
    padding_side: str = "right",
    keep_hidden: bool = False,
    temperature: float = 1.0,
) -> TokenLogps:
    """Log-probability of every response token of `trees` under a transformers model (or a PEFT model around one).

    Differentiable; `torch.no_grad()` is the caller's. Values are float32 whatever the model's dtype. With `keep_hidden`
    also the hidden states that the tokens are predicted from, before the vocabulary matrix. `temperature` divides the
    logits: 1 is the model itself.
    """
    base = cast(PreTrainedModel, unwrapped(model))
    device = next(base.parameters()).device
    if base.config.is_encoder_decoder:
        return _padded_encoder_decoder(model, trees, device, keep_hidden, temperature)
    window = getattr(base.config, "sliding_window", None)
    beyond_window = window is not None and any(
        len(tree.prompt) + max(map(len, tree.responses)) > window for tree in trees
    )
    if method == "padded" or beyond_window:
        return _padded_decoder_only(model, trees, device, padding_side, keep_hidden, temperature)
    layout = lay_out(trees, device=device, padding_allowed=padding_worth_a_call(base, device))
    hidden = packed_hidden(base, layout)[layout.predictors]
    head = VocabularyHead.of(base)
    scaled, bias = (hidden, head.bias) if temperature == 1 else (hidden / temperature, _divided(head.bias, temperature))
    values = selected_logprob(scaled, head.weight, layout.targets, bias)
    return TokenLogps(values, layout.response, layout.counts.float(), hidden if keep_hidden else None)


def _divided(bias: Tensor | None, temperature: float) -> Tensor | None:
    return None if bias is None else bias / temperature


def packed_hidden(
    base: PreTrainedModel, layout: Layout, decode_state: Any | None = None
) -> Float[Tensor, "positions width"]:
    """Last hidden states of a packed row. The 4-D dummy mask tells transformers to build none of its own."""
    output = base.get_decoder()(
        input_ids=layout.input_ids,
        position_ids=layout.position_ids,
        attention_mask=torch.zeros(1, 1, 1, 1, device=layout.input_ids.device),
        use_cache=False,
        packed_blocks=layout.blocks,
        decode_state=decode_state,
    )
    return cast(Tensor, output.last_hidden_state)[0]


@torch.no_grad()
def packed_agrees(model: nn.Module, *, tolerance: float = 2e-3) -> tuple[bool, str]:
    """Whether the packed path gives the padded path's numbers on this architecture, and if not, why."""
    base = cast(PreTrainedModel, unwrapped(model))
    if base.config.is_encoder_decoder:
        return False, "an encoder-decoder model"
    if base.config._attn_implementation != ATTENTION:
        return False, "the architecture takes no custom attention"
    vocabulary = cast(nn.Embedding, base.get_input_embeddings()).num_embeddings
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocabulary, (40,), generator=draw).tolist()
    trees = [Tree(ids[:7], [ids[7:12], ids[12:21]]), Tree(ids[21:30], [ids[30:31], ids[31:40]])]
    training = model.training
    model.eval()
    try:
        packed = token_logps(model, trees, method="packed").values
        padded = token_logps(model, trees, method="padded").values
    except (RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError) as error:
        return False, f"its forward pass refused packed rows ({error})"
    finally:
        model.train(training)
    worst = (packed - padded).abs().max().item()
    if next(base.parameters()).dtype != torch.float32:
        tolerance = 0.25  # low precision rounds differently in the two orders of summation
    return (worst <= tolerance), f"packed and padded log-probabilities differ by {worst:.2g}"
