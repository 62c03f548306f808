"""The forward passes of a reward model: packed for decoders, each prompt computed once, and the plain padded one.

Token ids in, scores out. The plain one is the model's own forward on right-padded rows: what the packed one is checked
against, and what runs for encoders and where attention takes no custom mask.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from paperworks.core.errors import ModelError, first_line
from paperworks.language import logprobs
from paperworks.language.logprobs import Tree
from paperworks.language.rewards.member_blocks import watched

if TYPE_CHECKING:
    from paperworks.language.rewards.model import RewardModel


def packed(model: RewardModel, trees: Sequence[Tree]) -> Float[Tensor, "responses ..."]:
    """Scores with each prompt computed once; the head meets only the states that it reads, in float32.

    [responses], or [responses, members] of an ensemble.
    """
    if not model.tops:
        return _headed(last_linear(model.base), read_states(model, trees))
    with watched(model.base, model.own_layers) as calls:
        hidden, reads = _packed_reads(model, trees)
    each = [_headed(last_linear(model.base), hidden[reads])]
    for top in model.tops:
        top.train(model.base.training)
        each.append(_headed(top.head, top.states(calls)[0][reads]))
    return torch.stack(each, 1)


def _headed(head: nn.Linear, states: Float[Tensor, "responses width"]) -> Float[Tensor, "responses ..."]:
    with torch.autocast(states.device.type, enabled=False):
        bias = None if head.bias is None else head.bias.float()
        return functional.linear(states.float(), head.weight.float(), bias).squeeze(-1)


def read_states(model: RewardModel, trees: Sequence[Tree]) -> Float[Tensor, "responses width"]:
    """The hidden state of each response's last token that is not padding, as transformers' heads read it."""
    hidden, reads = _packed_reads(model, trees)
    return hidden[reads]


def _packed_reads(
    model: RewardModel, trees: Sequence[Tree]
) -> tuple[Float[Tensor, "positions width"], Int[Tensor, " responses"]]:
    """All states of the packed row, and where the head reads."""
    base, device, pad = model.base, model.device, model.base.config.pad_token_id
    # The layout leaves out the last token of a response, from which a language model predicts nothing: one is appended.
    longer = [Tree(tree.prompt, [[*response, response[-1]] for response in tree.responses]) for tree in trees]
    layout = logprobs.lay_out(longer, device=device, padding_allowed=logprobs.padding_worth_a_call(base, device))
    hidden = logprobs.packed_hidden(base, layout)
    reads, first = [], 0
    for tree in trees:
        for response in tree.responses:
            depth = next((at for at in range(len(response), 0, -1) if response[at - 1] != pad), 0)
            reads.append(first + depth)  # depth 0 is the prompt's last token
            first += len(response) + 1
    return hidden, layout.predictors[torch.tensor(reads, device=device)]


def padded(model: RewardModel, trees: Sequence[Tree]) -> Float[Tensor, "responses ..."]:
    """Scores by the model's own forward pass on right-padded rows: [responses], or [responses, members]."""
    base, device = model.base, model.device
    rows = [(tree.prompt, response) for tree in trees for response in tree.responses]
    if not model.is_decoder:
        rows = [_closed(model.tokenizer, prompt, response) for prompt, response in rows]
    length = max(len(prompt) + len(response) for prompt, response in rows)
    ids = torch.full((len(rows), length), base.config.pad_token_id, dtype=torch.long)
    mask, types = torch.zeros_like(ids), torch.zeros_like(ids)
    for row, (prompt, response) in enumerate(rows):
        size = len(prompt) + len(response)
        ids[row, :size] = torch.tensor([*prompt, *response])
        mask[row, :size] = 1
        types[row, len(prompt) : size] = 1
    inputs: dict[str, Any] = {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
    if model.is_decoder:
        inputs["use_cache"] = False
    if _tells_texts_apart(model):
        inputs["token_type_ids"] = types.to(device)
    if not model.tops:
        return cast(Tensor, model.model(**inputs).logits).squeeze(-1).float()
    with watched(model.base, model.own_layers) as calls:
        each = [cast(Tensor, model.model(**inputs).logits).squeeze(-1).float()]
    places = torch.arange(length).expand_as(ids)
    last = torch.where(ids != base.config.pad_token_id, places, 0).amax(1).to(device)  # where transformers reads
    for top in model.tops:
        top.train(base.training)
        each.append(_headed(top.head, top.states(calls)[torch.arange(len(rows), device=device), last]))
    return torch.stack(each, 1)


def _closed(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int], response: Sequence[int]
) -> tuple[Sequence[int], Sequence[int]]:
    """A pair whose cut ends carry an encoder's start and end tokens again, in place of the tokens there."""
    start, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    if start is not None and prompt[0] != start:
        prompt = [start, *prompt[1:]]
    if end is not None and response[-1] != end:
        response = [*response[:-1], end]
    return prompt, response


def _tells_texts_apart(model: RewardModel) -> bool:
    return (
        not model.is_decoder
        and getattr(model.base.config, "type_vocab_size", 0) > 1
        and "token_type_ids" in model.tokenizer.model_input_names
        and "token_type_ids" in inspect.signature(model.base.forward).parameters
    )


@torch.no_grad()
def packed_agrees(model: RewardModel, *, tolerance: float = 1e-4) -> tuple[bool, str]:
    """Whether the packed path gives the plain forward pass's scores on this architecture, and if not, why."""
    base = model.base
    if base.config._attn_implementation != logprobs.ATTENTION:
        return False, "the architecture takes no custom attention"
    pad, vocabulary = base.config.pad_token_id, cast(nn.Embedding, base.get_input_embeddings()).num_embeddings
    draw = torch.Generator().manual_seed(0)
    ids = [i for i in torch.randint(0, vocabulary, (80,), generator=draw).tolist() if i != pad][:40]
    trees = [Tree(ids[:7], [ids[7:12], ids[12:21]]), Tree(ids[21:30], [ids[30:31], ids[31:40]])]
    training = model.model.training
    model.model.eval()
    try:
        fast, plain = packed(model, trees), padded(model, trees)
    except (RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError) as error:
        return False, f"its forward pass refused packed rows ({first_line(error)})"
    finally:
        model.model.train(training)
    worst = ((fast - plain).abs() / plain.abs().clamp(min=1)).max().item()
    if next(base.parameters()).dtype != torch.float32:
        tolerance = 0.05  # low precision rounds differently in the two orders of summation
    return worst <= tolerance, f"packed and padded scores differ by {worst:.2g}"


def last_linear(base: nn.Module) -> nn.Linear:
    """The linear map that gives the score: the head, or the last one inside it; beneath PEFT's copy the one that trains."""
    return head_linears(base)[0]


def head_linears(base: nn.Module) -> list[nn.Linear]:
    """`last_linear`, and beneath PEFT also the one that it began as. Raises ModelError for a head that is not linear."""
    head = getattr(base, "score", None) or getattr(base, "classifier", None)
    heads = [] if head is None else [head]
    if head is not None and hasattr(head, "modules_to_save") and head.modules_to_save:
        heads = [*head.modules_to_save.values(), head.original_module]
    found = []
    for each in heads:
        linears = [module for module in each.modules() if isinstance(module, nn.Linear)]
        found += linears[-1:]
    if not found:
        raise ModelError(f"{type(base).__name__} has no linear head named score or classifier; use another model")
    return found


def position_offset(base: nn.Module) -> int:
    """Positions that RoBERTa and its kin never use: they count from the padding token's index."""
    for name, module in base.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return 0 if module.padding_idx is None else module.padding_idx + 1
    return 0
