"""Last hidden states against the vocabulary matrix, in chunks, so that no [tokens, vocabulary] tensor survives.

The log-probability of chosen tokens, and the divergence between two models' distributions, both with exact gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel


def unwrapped(model: nn.Module) -> nn.Module:
    """The transformers model inside a PEFT wrapper (whose adapters sit in its layers), or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]


class _SelectedLogprob(torch.autograd.Function):
    """log softmax(hidden @ weight.T + bias)[target] without keeping any [tokens, vocabulary] tensor.

    With a frozen vocabulary matrix the gradient of each token with respect to its hidden state is formed in the forward
    pass (one product fewer); with a trainable one the logits are recomputed chunk by chunk in the backward pass. Products
    are in `dtype`, everything that is summed over tokens or the vocabulary in float32 or the weights' own dtype.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        chunk: int,
        dtype: torch.dtype,
    ) -> Tensor:
        weight_trains = ctx.needs_input_grad[1] or (bias is not None and ctx.needs_input_grad[2])
        keep_unit = ctx.needs_input_grad[0] and not weight_trains
        selected = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        normaliser = torch.empty_like(selected)
        unit = torch.empty_like(hidden) if keep_unit else None
        matrix, offset = weight.to(dtype), None if bias is None else bias.to(dtype)
        for start in range(0, len(targets), chunk):
            part = slice(start, start + chunk)
            logits = functional.linear(hidden[part].to(dtype), matrix, offset).float()
            normaliser[part] = logits.logsumexp(-1)
            selected[part] = logits.gather(1, targets[part, None]).squeeze(1) - normaliser[part]
            if unit is not None:
                probability = logits.sub_(normaliser[part, None]).exp_()
                unit[part] = functional.embedding(targets[part], weight) - probability.to(dtype) @ matrix
        ctx.chunk, ctx.dtype, ctx.keeps_unit = chunk, dtype, unit is not None
        if unit is not None:
            ctx.save_for_backward(unit)
        else:
            ctx.save_for_backward(hidden, weight, bias, targets, normaliser)
        return selected

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        if ctx.keeps_unit:
            (unit,) = ctx.saved_tensors
            return unit * grad[:, None].to(unit.dtype), None, None, None, None, None
        hidden, weight, bias, targets, normaliser = ctx.saved_tensors
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.empty_like(hidden) if wants_hidden else None
        grad_weight = torch.zeros_like(weight) if wants_weight else None
        grad_bias = torch.zeros_like(bias) if wants_bias and bias is not None else None
        matrix, offset = weight.to(ctx.dtype), None if bias is None else bias.to(ctx.dtype)
        for start in range(0, len(targets), ctx.chunk):
            part = slice(start, start + ctx.chunk)
            inputs = hidden[part].to(ctx.dtype)
            logits = functional.linear(inputs, matrix, offset).float()
            # d logp_t / d logits = onehot(target) - softmax
            grad_logits = logits.sub_(normaliser[part, None]).exp_().mul_(-grad[part, None])
            grad_logits.scatter_add_(1, targets[part, None], grad[part, None].float())
            if grad_bias is not None:
                grad_bias += grad_logits.sum(0)
            grad_logits = grad_logits.to(ctx.dtype)
            if grad_hidden is not None:
                grad_hidden[part] = grad_logits @ matrix
            if grad_weight is not None and grad_weight.dtype == ctx.dtype:
                grad_weight.addmm_(grad_logits.T, inputs)
            elif grad_weight is not None:
                grad_weight += grad_logits.T @ inputs
        return grad_hidden, grad_weight, grad_bias, None, None, None


def selected_logprob(
    hidden: Float[Tensor, "tokens width"],
    weight: Float[Tensor, "vocabulary width"],
    targets: Int[Tensor, " tokens"],
    bias: Float[Tensor, " vocabulary"] | None = None,
    *,
    chunk_bytes: int = 1 << 25,
) -> Float[Tensor, " tokens"]:
    """log softmax(hidden @ weight.T + bias) at `targets`, float32, with at most `chunk_bytes` of logits alive.

    Under autocast the products are in its dtype, forward and backward alike.
    """
    chunk = max(1, chunk_bytes // (4 * weight.shape[0]))
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    with torch.autocast(device, enabled=False):
        return cast(Tensor, _SelectedLogprob.apply(hidden, weight, bias, targets, chunk, dtype))


class _VocabularyKL(torch.autograd.Function):
    """KL(p || q) a token, p = softmax(fixed_hidden @ fixed.T + bias), q = softmax(hidden @ weight.T + bias).

    Only q carries a gradient, q - p with respect to its logits. As in `_SelectedLogprob` no [tokens, vocabulary] tensor
    is kept: with a frozen matrix each token's gradient is formed on the way forward, else logits are computed again.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        fixed_hidden: Tensor,
        fixed_weight: Tensor,
        fixed_bias: Tensor | None,
        chunk: int,
    ) -> Tensor:
        weight_trains = ctx.needs_input_grad[1] or (bias is not None and ctx.needs_input_grad[2])
        unit = torch.empty_like(hidden) if ctx.needs_input_grad[0] and not weight_trains else None
        out = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(hidden), chunk):
            part = slice(start, start + chunk)
            log_p = functional.linear(fixed_hidden[part], fixed_weight, fixed_bias).float().log_softmax(-1)
            log_q = functional.linear(hidden[part], weight, bias).float().log_softmax(-1)
            p = log_p.exp()
            out[part] = (p * (log_p - log_q)).sum(-1)
            if unit is not None:
                unit[part] = (log_q.exp() - p).to(weight.dtype) @ weight
        ctx.chunk, ctx.keeps_unit = chunk, unit is not None
        if unit is not None:
            ctx.save_for_backward(unit)
        else:
            ctx.save_for_backward(hidden, weight, bias, fixed_hidden, fixed_weight, fixed_bias)
        return out

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        if ctx.keeps_unit:
            (unit,) = ctx.saved_tensors
            return unit * grad[:, None].to(unit.dtype), None, None, None, None, None, None
        hidden, weight, bias, fixed_hidden, fixed_weight, fixed_bias = ctx.saved_tensors
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.empty_like(hidden) if wants_hidden else None
        grad_weight = torch.zeros_like(weight) if wants_weight else None
        grad_bias = torch.zeros_like(bias) if wants_bias and bias is not None else None
        for start in range(0, len(hidden), ctx.chunk):
            part = slice(start, start + ctx.chunk)
            p = functional.linear(fixed_hidden[part], fixed_weight, fixed_bias).float().softmax(-1)
            q = functional.linear(hidden[part], weight, bias).float().softmax(-1)
            difference = q.sub_(p).mul_(grad[part, None])
            if grad_bias is not None:
                grad_bias += difference.sum(0)
            difference = difference.to(weight.dtype)
            if grad_hidden is not None:
                grad_hidden[part] = difference @ weight
            if grad_weight is not None:
                grad_weight.addmm_(difference.T, hidden[part])
        return grad_hidden, grad_weight, grad_bias, None, None, None, None


@dataclass(frozen=True)
class VocabularyHead:
    """The matrix (and bias) that turns last hidden states into logits."""

    weight: Float[Tensor, "vocabulary width"]
    bias: Float[Tensor, " vocabulary"] | None = None

    @classmethod
    def of(cls, model: nn.Module) -> VocabularyHead:
        """That of a model, as it is now and will be: no copy."""
        head = cast(nn.Linear, cast(PreTrainedModel, unwrapped(model)).get_output_embeddings())
        return cls(head.weight, head.bias)

    def frozen(self) -> VocabularyHead:
        """As it is now: a copy where the matrix trains."""
        if not self.weight.requires_grad:
            return self
        return VocabularyHead(self.weight.detach().clone(), None if self.bias is None else self.bias.detach().clone())


def vocabulary_kl(
    hidden: Float[Tensor, "tokens width"],
    head: VocabularyHead,
    reference_hidden: Float[Tensor, "tokens width"],
    reference_head: VocabularyHead,
    *,
    chunk_bytes: int = 1 << 25,
) -> Float[Tensor, " tokens"]:
    """KL(pi_ref || pi_theta) over the whole vocabulary at each token's position, float32, from last hidden states.

    The reference's hidden states do not change while training, so they are computed once: a step needs no forward pass
    of the reference, and no tensor of [tokens, vocabulary] beyond `chunk_bytes` is alive.
    """
    chunk = max(1, chunk_bytes // (8 * head.weight.shape[0]))
    with torch.autocast(hidden.device.type, enabled=False):
        value = _VocabularyKL.apply(
            hidden.to(head.weight.dtype),
            head.weight,
            head.bias,
            reference_hidden.to(head.weight.dtype),
            reference_head.weight,
            reference_head.bias,
            chunk,
        )
    return cast(Tensor, value)
