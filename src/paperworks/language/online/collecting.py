"""An iteration's rollouts: drawn, scored under every model that is asked, rewarded. Without gradient throughout."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from paperworks.core.errors import OptionError, RewardError
from paperworks.core.seeding import derive_seed
from paperworks.language.items import batches_by_tokens
from paperworks.language.logprobs import Tree
from paperworks.language.online.options import OnlineOptions
from paperworks.language.online.rollouts import Rollouts
from paperworks.language.policy import Policy
from paperworks.language.rewards.reward import Reward
from paperworks.language.sampling import Mixture, Sample, sample
from paperworks.language.values.critic import Critic
from paperworks.language.values.head import ValueHead
from paperworks.language.vllm_engine import VllmEngine
from paperworks.language.vllm_server import VllmServer


@dataclass(frozen=True)
class Draw:
    """Answers of one kind to every prompt: how many, and who writes them."""

    writer: Literal["policy", "reference", "mixture"]
    count: int
    share: float = 0.0  # of the reference in a mixture


@dataclass
class Spent:
    """What collecting cost: seconds, and tokens written."""

    sampling: float = 0.0
    scoring: float = 0.0
    tokens: int = 0


@dataclass(frozen=True)
class Models:
    """Who writes and who scores."""

    policy: Policy
    reference: Policy | None
    critic: ValueHead | Critic | None = None
    others: Mapping[str, Policy] = field(default_factory=dict)  # scored into `Rollouts.extra`
    server: VllmServer | VllmEngine | None = None  # writes in place of policy and reference


def collect(
    models: Models,
    rows: Sequence[Any],
    draws: Sequence[Draw],
    options: OnlineOptions,
    *,
    seed: int,
    iteration: int,
    reward: Reward | None = None,
    prefixes: Sequence[tuple[int, ...]] | None = None,
    spent: Spent | None = None,
) -> Rollouts:
    """Answers to each row's prompt (in draws' order), with log-probabilities, values and rewards.

    `prefixes`: token ids of the beginning of an answer that each prompt's writers go on from. Raises DataError for a
    prompt without room, RewardError for a reward that fails.
    """
    spent = spent if spent is not None else Spent()
    prompts = [row.prompt for row in rows]
    prefixes = prefixes or [()] * len(rows)
    prompt_ids = [
        (*models.policy.encode_prompt(prompt), *prefix) for prompt, prefix in zip(prompts, prefixes, strict=True)
    ]
    began = time.perf_counter()
    if models.server is not None and any(draw.writer == "policy" for draw in draws):
        models.server.synchronise(models.policy)
    drawn: list[list[tuple[Sample, Draw]]] = [[] for _ in rows]
    for number, draw in enumerate(draws):
        if not draw.count:
            continue
        for at, found in enumerate(_drawn(models, prompts, prompt_ids, draw, options, seed, iteration, number)):
            drawn[at] += [(each, draw) for each in found.samples]
    spent.sampling += time.perf_counter() - began
    rollouts = _flat(models.policy, prompts, rows, prompt_ids, prefixes, drawn)
    spent.tokens += len(rollouts.response)
    began = time.perf_counter()
    rollouts = _scored(models, rollouts, [(each, draw) for of_prompt in drawn for each, draw in of_prompt])
    if reward is not None:
        rollouts = rollouts.replace(rewards=rewards_of(reward, rollouts, options))
    spent.scoring += time.perf_counter() - began
    return rollouts


def rewards_of(reward: Reward, rollouts: Rollouts, options: OnlineOptions) -> Tensor:
    """Each answer's reward, with the rule for answers that the length limit cut."""
    prompts = [rollouts.prompts[group] for group in rollouts.group.tolist()]
    values = torch.tensor(reward(prompts, list(rollouts.texts)), dtype=torch.float32)
    if not bool(values.isfinite().all()):
        raise RewardError(f"{reward.name}: gave a number that is not finite in float32")
    if options.missing_end == "score":
        values = torch.where(rollouts.finished, values, torch.full_like(values, options.missing_end_reward))
    elif options.missing_end == "penalty":
        values = values + torch.where(rollouts.finished, 0.0, options.missing_end_reward)
    return values


def _drawn(
    models: Models,
    prompts: Sequence[Any],
    prompt_ids: Sequence[tuple[int, ...]],
    draw: Draw,
    options: OnlineOptions,
    seed: int,
    iteration: int,
    number: int,
) -> Any:
    writer = models.policy
    if draw.writer == "reference":
        assert models.reference is not None
        writer = models.reference
    mixture = None
    if draw.writer == "mixture" and draw.share > 0:
        assert models.reference is not None
        mixture = Mixture(models.reference, draw.share)
    if models.server is not None:
        if mixture is not None:
            raise OptionError("vLLM cannot draw from a mixture of policies: leave --vllm and --vllm-url out")
        return models.server.sample(
            writer, prompts, prompt_ids, n=draw.count, max_new_tokens=options.max_new_tokens,
            temperature=options.temperature, top_k=options.top_k, adapted=draw.writer != "reference",
            seed=derive_seed(seed, "rollouts", iteration, number),
        )  # fmt: skip
    return sample(
        writer,
        prompts,
        prompt_ids=prompt_ids,
        n=draw.count,
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        top_k=options.top_k,
        seed=derive_seed(seed, "rollouts", iteration, number),
        batch_rows=256,
        mixture=mixture,
    )


def _flat(
    policy: Policy,
    prompts: Sequence[Any],
    rows: Sequence[Any],
    prompt_ids: Sequence[tuple[int, ...]],
    prefixes: Sequence[tuple[int, ...]],
    drawn: Sequence[Sequence[tuple[Sample, Draw]]],
) -> Rollouts:
    flat = [(group, each, draw) for group, of_prompt in enumerate(drawn) for each, draw in of_prompt]
    ids = [each.ids for _, each, _ in flat]
    texts = [policy.decode([*prefixes[group], *each.ids]) if prefixes[group] else each.text for group, each, _ in flat]
    return Rollouts(
        prompts=prompts,
        rows=rows,
        prompt_ids=prompt_ids,
        prefixes=prefixes,
        texts=texts,
        ids=ids,
        group=torch.tensor([group for group, _, _ in flat], dtype=torch.long),
        finished=torch.tensor([each.finished for _, each, _ in flat]),
        response=torch.arange(len(ids)).repeat_interleave(torch.tensor([len(each) for each in ids], dtype=torch.long)),
        logps=torch.tensor([value for _, each, _ in flat for value in each.token_logps or [math.nan] * len(each.ids)]),
        from_reference=torch.tensor([draw.writer == "reference" for _, _, draw in flat]),
        own=torch.tensor(
            [draw.writer == "policy" or (draw.writer == "mixture" and not draw.share) for _, _, draw in flat]
        ),
    )


def _scored(models: Models, rollouts: Rollouts, drawn: Sequence[tuple[Sample, Draw]]) -> Rollouts:
    """The log-probabilities that sampling did not bring, and the critic's values."""
    trees = trees_of(rollouts)
    unscored = any(draw.writer == "reference" or not found.token_logps for found, draw in drawn)
    if models.critic is not None or unscored:
        logps, values = token_scores(models.policy, trees, models.critic)
        rollouts = rollouts.replace(logps=logps, values=values)
    if models.reference is not None:
        rollouts = rollouts.replace(reference=token_scores(models.reference, trees)[0])
    extra = {name: token_scores(other, trees)[0] for name, other in models.others.items()}
    return rollouts.replace(extra=extra) if extra else rollouts


def trees_of(rollouts: Rollouts) -> list[Tree]:
    """A tree a prompt, with its responses in order."""
    return [
        Tree(prompt, [rollouts.ids[index] for index in members])
        for prompt, members in zip(rollouts.prompt_ids, rollouts.members(), strict=True)
    ]


def token_scores(
    policy: Policy, trees: Sequence[Tree], critic: ValueHead | Critic | None = None, *, most_tokens: int = 4096
) -> tuple[Tensor, Tensor | None]:
    """Log-probability of every response token in the trees' order, and the critic's value before each, on the CPU."""
    sizes = [sum(map(len, tree.responses)) for tree in trees]
    logps: list[Tensor] = [torch.zeros(0)] * len(trees)
    values: list[Tensor] = [torch.zeros(0)] * len(trees)
    for batch in batches_by_tokens(trees, most_tokens):
        of_batch = [trees[at] for at in batch]
        found = policy.token_logps(of_batch, keep_hidden=isinstance(critic, ValueHead))
        parts = found.values.float().cpu().split([sizes[at] for at in batch])
        for at, part in zip(batch, parts, strict=True):
            logps[at] = part
        if critic is not None:
            with torch.no_grad():
                states = critic.states(of_batch) if isinstance(critic, Critic) else found.hidden
                assert states is not None
                of_states = critic.at_positions(states).cpu().split([sizes[at] for at in batch])
            for at, part in zip(batch, of_states, strict=True):
                values[at] = part
    return torch.cat(logps), torch.cat(values) if critic is not None else None
