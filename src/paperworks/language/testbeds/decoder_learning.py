"""Learning from rewards and pairs for many small decoders at once: the pieces that experiments put together.

Credit, surrogates and pair losses are those of the library (`online.credit`, `objectives`); here they are only laid out
over nets. Shapes: [nets, rows, steps] with the mask of `Responses`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from paperworks.language.objectives.objective import ByToken, PairLogps, PairObjective, ResponseLogps
from paperworks.language.objectives.policy_gradient import clipped_surrogate, clipped_value_loss
from paperworks.language.online.credit import generalised_advantages, leave_one_out
from paperworks.language.testbeds.decoders import Adam, Decoders, Responses, response_mask


@dataclass(frozen=True)
class Credit:
    """What PPO's update reads, constants: [nets, rows, steps]."""

    advantages: Tensor
    returns: Tensor
    old_logps: Tensor
    old_values: Tensor
    counted: Bool[Tensor, "nets rows steps"]  # the tokens whose loss counts


def repeated(reward: Float[Tensor, "nets rows"], mask: Bool[Tensor, "nets rows steps"]) -> Tensor:
    """A response's reward on its last token, zeros elsewhere."""
    last = mask & ~torch.cat([mask[..., 1:], torch.zeros_like(mask[..., :1])], -1)
    return torch.where(last, reward[..., None], torch.zeros(()))


def masked_mean(values: Tensor, mask: Tensor) -> Float[Tensor, " nets"]:
    """Each net's mean over the masked entries of [nets, ...]."""
    return (values * mask).flatten(1).sum(1) / mask.flatten(1).sum(1).clamp(min=1)


def whitened_by_net(values: Tensor, mask: Bool[Tensor, "nets rows steps"], *, shift: bool = True) -> Tensor:
    """Values with variance 1 (and mean 0 where `shift`) over each net's masked entries; zeros elsewhere."""
    mean = masked_mean(values, mask)[:, None, None]
    variance = masked_mean((values - mean).square(), mask)[:, None, None]
    out = (values - mean) * torch.rsqrt(variance + 1e-8)
    return torch.where(mask, out if shift else out + mean, torch.zeros(()))


def advantages(
    rewards: Float[Tensor, "nets rows steps"],
    values: Float[Tensor, "nets rows steps"],
    mask: Bool[Tensor, "nets rows steps"],
    *,
    gamma: float = 1.0,
    decay: float | Float[Tensor, " nets"] = 0.95,
) -> tuple[Tensor, Tensor]:
    """GAE over every response of every net, each net with its decay: advantages and returns, zeros where masked."""
    nets, rows, steps = mask.shape
    if isinstance(decay, Tensor):
        decay = decay.repeat_interleave(rows)
    response = torch.arange(nets * rows).view(nets, rows, 1).expand(-1, -1, steps)[mask]
    found = generalised_advantages(rewards[mask], values[mask], response, gamma=gamma, decay=decay)
    out = [torch.zeros_like(rewards), torch.zeros_like(rewards)]
    for padded, flat in zip(out, found, strict=True):
        padded[mask] = flat
    return out[0], out[1]


def leave_one_out_by_net(rewards: Float[Tensor, "nets rows"], samples: int) -> Float[Tensor, "nets rows"]:
    """RLOO advantages where `samples` rows in a row answer the same prompt."""
    nets, rows = rewards.shape
    group = torch.arange(nets * rows) // samples
    return leave_one_out(rewards.flatten(), group).view(nets, rows)


def ppo_credit(
    policy: Decoders,
    written: Responses,
    token_rewards: Float[Tensor, "nets rows steps"],
    *,
    gamma: float = 1.0,
    decay: float | Float[Tensor, " nets"] = 0.95,
    counted: Bool[Tensor, "nets rows steps"] | None = None,
) -> Credit:
    """Values, advantages (whitened by net) and returns of what the policy wrote."""
    counted = written.mask if counted is None else counted & written.mask
    with torch.no_grad():
        old, values = policy.scored(written.tokens, written.prompt)
    values = torch.where(written.mask, values, torch.zeros(()))
    advantage, returns = advantages(token_rewards, values, written.mask, gamma=gamma, decay=decay)
    return Credit(whitened_by_net(advantage, counted), returns, old, values, counted)


def ppo_update(
    policy: Decoders,
    adam: Adam,
    written: Responses,
    credit: Credit,
    *,
    clip: float = 0.2,
    value_clip: float = 0.2,
    value_weight: float = 0.5,
    factor: float = 1.0,
) -> None:
    """One optimiser step of PPO for every net; `factor` scales the learning rates."""
    logps, values = policy.scored(written.tokens, written.prompt)
    loss, _ = clipped_surrogate(logps - credit.old_logps, credit.advantages, clip)
    value = clipped_value_loss(values, credit.old_values, credit.returns, value_clip)
    total = masked_mean(loss, credit.counted) + value_weight * masked_mean(value, written.mask)
    adam.step(total, factor=factor)


def policy_gradient_update(
    policy: Decoders, adam: Adam, written: Responses, advantage: Float[Tensor, "nets rows"], *, factor: float = 1.0
) -> None:
    """One step along advantage * grad log pi(y|x), a mean over rows."""
    logps, _ = policy.scored(written.tokens, written.prompt)
    adam.step(-(advantage * (logps * written.mask).sum(-1)).mean(1), factor=factor)


def summed_logps(nets: Decoders, tokens: Int[Tensor, "nets rows length"], prompt: int) -> Float[Tensor, "nets rows"]:
    """log pi(y|x) of whole responses."""
    logps, _ = nets.scored(tokens, prompt)
    return (logps * response_mask(tokens[:, :, prompt:])).sum(-1)


def pair_logps(
    policy: Decoders,
    chosen: Int[Tensor, "nets rows length"],
    rejected: Int[Tensor, "nets rows length"],
    prompt: int,
    reference: tuple[Float[Tensor, "nets rows"], Float[Tensor, "nets rows"]],
) -> PairLogps:
    """Pairs of all nets, flat (net by net), as the library's pair objectives take them.

    `objective.loss(batch).view(nets, rows).mean(1)` is each net's loss.
    """
    tokens = torch.cat([chosen, rejected], 1)
    sums = summed_logps(policy, tokens, prompt).chunk(2, 1)
    counts = response_mask(tokens[:, :, prompt:]).sum(-1).float().chunk(2, 1)
    parts = [
        ResponseLogps(policy=of.flatten(), tokens=count.flatten(), reference=known.flatten())
        for of, count, known in zip(sums, counts, reference, strict=True)
    ]
    return PairLogps(parts[0], parts[1], torch.ones_like(parts[0].tokens))


def loss_by_setting(batch: PairLogps, objectives: Sequence[PairObjective], nets: int) -> Float[Tensor, " nets"]:
    """Each net's mean loss over its pairs, the objectives one after another with as many nets each (see `by_setting`)."""
    each = len(batch.weight) // len(objectives)
    losses = []
    for at, objective in enumerate(objectives):
        rows = slice(at * each, (at + 1) * each)
        sides = [
            ResponseLogps(
                policy=side.policy[rows],
                tokens=side.tokens[rows],
                reference=None if side.reference is None else side.reference[rows],
            )
            for side in (batch.chosen, batch.rejected)
        ]
        losses.append(objective.loss(PairLogps(sides[0], sides[1], batch.weight[rows])))
    return torch.cat(losses).view(nets, -1).mean(1)


def token_logps(
    policy: Decoders, tokens: Int[Tensor, "nets rows length"], prompt: int, reference: Float[Tensor, "nets rows steps"]
) -> ByToken:
    """Token scores of all nets, flat, responses net by net."""
    logps, _ = policy.scored(tokens, prompt)
    mask = response_mask(tokens[:, :, prompt:])
    nets, rows, steps = mask.shape
    response = torch.arange(nets * rows).view(nets, rows, 1).expand(-1, -1, steps)[mask]
    return ByToken(logps[mask], reference[mask], response, nets * rows)


def kl_of(
    policy: Decoders,
    reference: Decoders,
    prompts: Int[Tensor, "nets rows prompt"],
    steps: int,
    generator: torch.Generator | Float[Tensor, "nets steps rows"],
) -> tuple[Float[Tensor, " nets"], Responses]:
    """KL(pi || pi_ref) in nats a response, each net's mean over fresh responses (token terms exact over the vocabulary).

    The sum along a sample of exact token KLs is an unbiased estimate of the sequence KL.
    """
    written = policy.sample(prompts, steps, generator)
    return kl_along(policy, reference, written), written


@torch.no_grad()
def kl_along(policy: Decoders, reference: Decoders, written: Responses) -> Float[Tensor, " nets"]:
    """KL(pi || pi_ref) in nats a response, from responses that the policy wrote (token terms exact)."""
    states = [each.states(written.tokens[:, :, :-1])[:, :, written.prompt - 1 :] for each in (policy, reference)]
    own, other = (each.logits(state).log_softmax(-1) for each, state in zip((policy, reference), states, strict=True))
    terms = (own.exp() * (own - other)).sum(-1)
    return (terms * written.mask).sum(-1).mean(1)


def uniform_by_seed(
    generators: Sequence[torch.Generator], nets: int, steps: int, rows: int
) -> Float[Tensor, "nets steps rows"]:
    """Numbers for `Decoders.sample` that the nets of a seed share and seeds do not; nets by setting, then seed."""
    numbers = torch.stack([torch.rand(steps, rows, generator=each) for each in generators])
    return numbers.repeat(nets // len(generators), 1, 1)


def tiled(values: Tensor, nets: int) -> Tensor:
    """The same rows for every net: [rows, ...] to [nets, rows, ...]."""
    return values[None].expand(nets, *values.shape)


def by_setting(nets: int, settings: Sequence[float]) -> Float[Tensor, " nets"]:
    """A setting for each net, the settings one after another with as many nets each."""
    each = nets // len(settings)
    return torch.tensor([value for value in settings for _ in range(each)])
