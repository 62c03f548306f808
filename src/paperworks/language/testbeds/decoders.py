"""Many small decoders as one: N independent transformers over token ids, batched along their first axis.

A seed or a setting is a row of every parameter, so that twenty runs cost little more than the arithmetic of twenty. They
are real policies: autoregressive, trained by gradient, sampled token by token. Sequences have one shape: a prompt of fixed
length, then up to `steps` tokens, ended by token 0, after which everything is masked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from paperworks.core.seeding import torch_generator

END = 0  # the token that ends a response

Parameters = dict[str, Tensor]  # each [nets, ...]


@dataclass(frozen=True)
class Shape:
    """The size of each decoder. `length` is the most tokens of prompt and response together."""

    vocabulary: int
    length: int
    width: int = 48
    layers: int = 2
    heads: int = 4


@dataclass(frozen=True)
class Responses:
    """What every net wrote to its prompts."""

    tokens: Int[Tensor, "nets rows length"]  # prompt and response; END behind a response's end
    logps: Float[Tensor, "nets rows steps"]  # of each response token under the net that wrote it; 0 where masked
    mask: Bool[Tensor, "nets rows steps"]  # the response's tokens, its END included
    prompt: int  # tokens of the prompt

    @property
    def answers(self) -> Int[Tensor, "nets rows steps"]:
        return self.tokens[:, :, self.prompt :]

    @property
    def counts(self) -> Int[Tensor, "nets rows"]:
        """Tokens of each response."""
        return self.mask.sum(-1)


class Decoders:
    """N independent pre-norm transformers with a vocabulary head and a value head."""

    def __init__(self, shape: Shape, parameters: Parameters) -> None:
        self.shape, self.parameters = shape, parameters

    @classmethod
    def fresh(cls, shape: Shape, seeds: Sequence[int]) -> Decoders:
        """A net for each seed, at random."""
        nets = [_drawn(shape, seed) for seed in seeds]
        return cls(shape, {name: torch.stack([net[name] for net in nets]) for name in nets[0]})

    def __len__(self) -> int:
        return len(self.parameters["embedding"])

    def take(self, nets: Sequence[int]) -> Decoders:
        """Copies of these nets, in this order; one named twice is there twice. Without gradient."""
        index = torch.tensor(list(nets))
        return Decoders(self.shape, {name: value.detach()[index].clone() for name, value in self.parameters.items()})

    def trainable(self) -> Decoders:
        """The same nets as leaves that take gradients."""
        return Decoders(
            self.shape, {name: value.detach().clone().requires_grad_() for name, value in self.parameters.items()}
        )

    # ---------------------------------------------------------------------------------------------------------- forward

    def states(self, tokens: Int[Tensor, "nets rows length"]) -> Float[Tensor, "nets rows length width"]:
        """The last hidden state at every position."""
        nets, rows, length = tokens.shape
        p = self.parameters
        flat = (tokens + self.shape.vocabulary * torch.arange(nets)[:, None, None]).reshape(-1)
        x = p["embedding"].flatten(0, 1)[flat].view(nets, rows * length, -1)
        x = x + p["position"][:, None, :length].expand(-1, rows, -1, -1).reshape(nets, rows * length, -1)
        for layer in range(self.shape.layers):
            q, k, v = self._projected(x, layer, nets * rows, length)
            attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = self._rest(x, attended.transpose(1, 2).reshape(nets, rows * length, -1), layer)
        return _normed(x, p["last.norm"]).view(nets, rows, length, -1)

    def logits(self, states: Float[Tensor, "nets rows some width"]) -> Float[Tensor, "nets rows some vocabulary"]:
        """Of the next token, from states."""
        return torch.einsum("nrtw,nwv->nrtv", states, self.parameters["head"])

    def values(self, states: Float[Tensor, "nets rows some width"]) -> Float[Tensor, "nets rows some"]:
        """The value head's number at each state."""
        return (
            torch.einsum("nrtw,nw->nrt", states, self.parameters["value"]) + self.parameters["value.bias"][:, :, None]
        )

    def scored(self, tokens: Int[Tensor, "nets rows length"], prompt: int) -> tuple[Tensor, Tensor]:
        """(log-probability of each token behind the prompt, value before it): two [nets, rows, steps]."""
        states = self.states(tokens[:, :, :-1])[:, :, prompt - 1 :]
        logps = self.logits(states).log_softmax(-1).gather(-1, tokens[:, :, prompt:, None]).squeeze(-1)
        return logps, self.values(states)

    def score(
        self, tokens: Int[Tensor, "nets rows length"], last: Int[Tensor, "nets rows"]
    ) -> Float[Tensor, "nets rows"]:
        """One number a sequence, from the value head at the position `last`: what a reward model says."""
        states = self.states(tokens)
        at = last[:, :, None, None].expand(-1, -1, 1, states.shape[-1])
        return self.values(states.gather(2, at)).squeeze(-1)

    @torch.no_grad()
    def sample(
        self,
        prompts: Int[Tensor, "nets rows prompt"],
        steps: int,
        generator: torch.Generator | Float[Tensor, "nets steps rows"],
        *,
        temperature: float = 1.0,
        mixed_with: Decoders | None = None,
        share: float = 0.0,
        forced: Int[Tensor, "nets rows steps"] | None = None,
    ) -> Responses:
        """A response to every prompt, up to `steps` tokens. Log-probabilities are the nets' own, at temperature 1.

        The same uniform numbers of a generator serve every net, so that runs differ by their nets alone (common random
        numbers); in place of a generator stand uniform numbers themselves, where nets shall not share them. With
        `mixed_with`, tokens come from the normalised pi^(1-share) other^share. `forced`: tokens that stand at their places
        in place of drawn ones, END (0) where the nets write.
        """
        nets, rows, prompt = prompts.shape
        if isinstance(generator, Tensor):
            uniform = generator
        else:
            uniform = torch.rand(1, steps, rows, generator=generator)
        tokens = torch.full((nets, rows, prompt + steps), END)
        tokens[:, :, :prompt] = prompts
        logps, mask = torch.zeros(nets, rows, steps), torch.zeros(nets, rows, steps, dtype=torch.bool)
        alive = torch.ones(nets, rows, dtype=torch.bool)
        models = [_Reading(self)] if mixed_with is None else [_Reading(self), _Reading(mixed_with)]
        fresh = prompts
        for step in range(steps):
            own = models[0].read(fresh).log_softmax(-1)
            drawn = own
            if mixed_with is not None:
                drawn = (1 - share) * own + share * models[1].read(fresh).log_softmax(-1)
            cumulative = (drawn / temperature if temperature else drawn).softmax(-1).cumsum(-1)
            threshold = uniform[:, step, :, None].clamp(max=1 - 1e-6) * cumulative[..., -1:]
            picked = torch.searchsorted(cumulative, threshold, right=True).squeeze(-1)
            picked = picked.clamp(max=self.shape.vocabulary - 1)
            if temperature == 0:
                picked = drawn.argmax(-1)
            if forced is not None:
                picked = torch.where(forced[:, :, step] != END, forced[:, :, step], picked)
            picked = torch.where(alive, picked, END)
            tokens[:, :, prompt + step] = picked
            mask[:, :, step] = alive
            logps[:, :, step] = torch.where(alive, own.gather(-1, picked[..., None]).squeeze(-1), 0.0)
            alive = alive & (picked != END)
            if not bool(alive.any()):
                break
            fresh = picked[:, :, None]
        return Responses(tokens, logps, mask, prompt)

    def _projected(self, x: Tensor, layer: int, batch: int, length: int) -> list[Tensor]:
        p, heads = self.parameters, self.shape.heads
        mixed = torch.bmm(_normed(x, p[f"{layer}.norm"]), p[f"{layer}.qkv"])
        return [part.reshape(batch, length, heads, -1).transpose(1, 2) for part in mixed.chunk(3, -1)]

    def _rest(self, x: Tensor, attended: Tensor, layer: int) -> Tensor:
        p = self.parameters
        x = torch.baddbmm(x, attended, p[f"{layer}.out"])
        inner = functional.relu(torch.bmm(_normed(x, p[f"{layer}.norm2"]), p[f"{layer}.up"]))
        return torch.baddbmm(x, inner, p[f"{layer}.down"])


class _Reading:
    """A net reading on, with its keys and values kept."""

    def __init__(self, nets: Decoders) -> None:
        self._nets, self._at = nets, 0
        self._cache: list[tuple[Tensor, Tensor]] = []

    def read(self, tokens: Int[Tensor, "nets rows some"]) -> Float[Tensor, "nets rows vocabulary"]:
        """Take in more tokens; logits of what follows the last."""
        nets, rows, length = tokens.shape
        own, p = self._nets, self._nets.parameters
        flat = (tokens + own.shape.vocabulary * torch.arange(nets)[:, None, None]).reshape(-1)
        x = p["embedding"].flatten(0, 1)[flat].view(nets, rows * length, -1)
        place = p["position"][:, None, self._at : self._at + length]
        x = x + place.expand(-1, rows, -1, -1).reshape(nets, rows * length, -1)
        for layer in range(own.shape.layers):
            q, k, v = own._projected(x, layer, nets * rows, length)
            if self._at:
                k, v = (torch.cat(pair, 2) for pair in zip(self._cache[layer], (k, v), strict=True))
                self._cache[layer] = (k, v)
            else:
                self._cache.append((k, v))
            attended = functional.scaled_dot_product_attention(q, k, v, is_causal=not self._at)
            x = own._rest(x, attended.transpose(1, 2).reshape(nets, rows * length, -1), layer)
        self._at += length
        last = _normed(x, p["last.norm"]).view(nets, rows, length, -1)[:, :, -1:]
        return own.logits(last).squeeze(2)


class Adam:
    """Adam over nets: a learning rate and a gradient norm limit for each net, which share nothing."""

    def __init__(
        self,
        nets: Decoders,
        rates: Float[Tensor, " nets"] | float,
        *,
        most_norm: float = 1.0,
        betas: tuple[float, float] = (0.9, 0.99),
    ) -> None:
        self._nets, self._most, self._betas = nets, most_norm, betas
        self._rates = torch.as_tensor(rates, dtype=torch.float32).expand(len(nets))
        self._moments = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in nets.parameters.items()}
        self._steps = 0

    @torch.no_grad()
    def step(self, loss: Float[Tensor, " nets"], *, factor: float = 1.0) -> None:
        """Descend each net's own loss; `factor` scales every learning rate."""
        names = list(self._nets.parameters)
        leaves = [self._nets.parameters[name] for name in names]
        found = torch.autograd.grad(loss, leaves, torch.ones_like(loss), allow_unused=True)
        gradients = {name: gradient for name, gradient in zip(names, found, strict=True) if gradient is not None}
        squares = sum(gradient.flatten(1).square().sum(1) for gradient in gradients.values())
        scale = (self._most / (torch.as_tensor(squares).sqrt() + 1e-6)).clamp(max=1.0)
        self._steps += 1
        first, second = self._betas
        for name, gradient in gradients.items():
            shape = (-1,) + (1,) * (gradient.dim() - 1)
            gradient = gradient * scale.view(shape)
            mean, square = self._moments[name]
            mean.lerp_(gradient, 1 - first)
            square.lerp_(gradient.square(), 1 - second)
            move = (mean / (1 - first**self._steps)) / ((square / (1 - second**self._steps)).sqrt() + 1e-8)
            self._nets.parameters[name] -= (factor * self._rates).view(shape) * move


def imitate(
    nets: Decoders,
    batches: Callable[[int], Int[Tensor, "nets rows length"]],
    prompt: int,
    *,
    steps: int,
    rate: Tensor | float = 3e-3,
) -> Decoders:
    """Nets after supervised training on the responses of `batches(step)`; the rate falls to 0 as a cosine."""
    trained = nets.trainable()
    adam = Adam(trained, rate)
    for step in range(steps):
        tokens = batches(step)
        logps, _ = trained.scored(tokens, prompt)
        mask = response_mask(tokens[:, :, prompt:])
        loss = -(logps * mask).sum((1, 2)) / mask.sum((1, 2))
        adam.step(loss, factor=0.5 * (1 + math.cos(math.pi * step / steps)))
    return trained.take(range(len(trained)))


def fit_scores(
    nets: Decoders,
    batches: Callable[[int], tuple[Tensor, Tensor]],
    prompt: int,
    *,
    steps: int,
    rate: Tensor | float = 2e-3,
    score: Callable[[Decoders, Tensor, int], Tensor] | None = None,
) -> Decoders:
    """Reward models by Bradley-Terry: nets that score the first of `batches(step)` = (chosen, rejected) higher.

    `score` is what a net says of responses, `scores_of` by default.
    """
    score = score or scores_of
    trained = nets.trainable()
    adam = Adam(trained, rate)
    for step in range(steps):
        chosen, rejected = batches(step)
        margin = score(trained, chosen, prompt) - score(trained, rejected, prompt)
        adam.step(-functional.logsigmoid(margin).mean(1), factor=0.5 * (1 + math.cos(math.pi * step / steps)))
    return trained.take(range(len(trained)))


def scores_of(nets: Decoders, tokens: Int[Tensor, "nets rows length"], prompt: int) -> Float[Tensor, "nets rows"]:
    """What reward models say of whole responses: their number at the last token."""
    count = response_mask(tokens[:, :, prompt:]).sum(-1)
    return nets.score(tokens, prompt + count - 1)


def mean_scores_of(nets: Decoders, tokens: Int[Tensor, "nets rows length"], prompt: int) -> Float[Tensor, "nets rows"]:
    """What reward models say that read every token of a response: the mean of their numbers."""
    mask = response_mask(tokens[:, :, prompt:])
    return (nets.values(nets.states(tokens)[:, :, prompt:]) * mask).sum(-1) / mask.sum(-1)


def response_mask(answers: Int[Tensor, "*shape steps"]) -> Bool[Tensor, "*shape steps"]:
    """True up to and with the first END."""
    ended = (answers == END).long().cumsum(-1)
    return (ended - (answers == END).long()) == 0


def _drawn(shape: Shape, seed: int) -> Parameters:
    draw = torch_generator(seed, "decoder")
    width = shape.width

    def matrix(rows: int, columns: int, gain: float = 1.0) -> Tensor:
        return torch.randn(rows, columns, generator=draw) * gain / math.sqrt(rows)

    found = {
        "embedding": torch.randn(shape.vocabulary, width, generator=draw) * 0.5,
        "position": torch.randn(shape.length, width, generator=draw) * 0.2,
        "last.norm": torch.ones(width),
        "head": matrix(width, shape.vocabulary, 0.5),
        "value": torch.zeros(width),
        "value.bias": torch.zeros(1),
    }
    for layer in range(shape.layers):
        found |= {
            f"{layer}.norm": torch.ones(width),
            f"{layer}.qkv": matrix(width, 3 * width),
            f"{layer}.out": matrix(width, width, 1 / math.sqrt(2 * shape.layers)),
            f"{layer}.norm2": torch.ones(width),
            f"{layer}.up": matrix(width, 2 * width),
            f"{layer}.down": matrix(2 * width, width, 1 / math.sqrt(2 * shape.layers)),
        }
    return found


def _normed(x: Tensor, weight: Float[Tensor, "nets width"]) -> Tensor:
    """Root mean square normalisation."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * weight[:, None]
