"""Small decoders that complete lists, trained offline on pairs that a learned ranking model labelled.

A world is what an experiment begins with: a supervised policy, human pairs of other policies, a ranking model fitted to
those, and many candidates of the supervised policy with the ranking model's scores. Which of them become pairs is the
library's rejection sampling and ranking; all settings and seeds of an arm are nets of one batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from paperworks.core.seeding import torch_generator
from paperworks.language.objectives.rso import RSO
from paperworks.language.sources.ranking import above_scaled, best_of, rank_pairs, reward_labeller
from paperworks.language.sources.rejection import RejectionOptions, first_of_each, rejection_sample
from paperworks.language.testbeds import list_completion
from paperworks.language.testbeds.decoder_learning import by_setting, kl_of, loss_by_setting, pair_logps, summed_logps
from paperworks.language.testbeds.decoders import Adam, Decoders, fit_scores, imitate, mean_scores_of
from paperworks.language.testbeds.list_completion import PROMPT, SHAPE, STEPS, Traits, gold_reward, traits
from paperworks.language.testbeds.world_files import Worlds, save_world

Source = Literal["direct", "candidates"]
Pairs = Int[Tensor, "seeds pairs two length"]  # chosen, rejected

ANY = 1e9  # a beta at which rejection sampling accepts whatever comes: samples of the supervised policy


@dataclass(frozen=True)
class Scale:
    """How much there is of everything."""

    imitation: int = 300
    worse_imitation: int = 100  # of the worse of the two policies that human pairs come from
    human_pairs: int = 3000
    ranking_steps: int = 300
    prompts: int = 256
    candidates: int = 64  # a prompt
    accepted: int = 8  # of them
    steps: int = 96
    batch: int = 32  # pairs a step; twice as many answers where they are imitated
    judged: int = 512  # held-out prompts


@dataclass(frozen=True)
class World:
    """Seeds side by side; every tensor begins with them."""

    seeds: tuple[int, ...]
    policy: Decoders
    ranker: Decoders  # Bradley-Terry: its score is the reward in nats
    unit: Float[Tensor, " seeds"]  # of gold rewards: their deviation over the policy's samples
    human: Pairs
    candidates: Int[Tensor, "seeds prompts candidates length"]
    scores: Float[Tensor, "seeds prompts candidates"]
    accuracy: Float[Tensor, " seeds"]  # of the ranker, on pairs of the policy's samples, by the gold reward

    def gold(self, found: Traits) -> Float[Tensor, "nets rows"]:
        """Gold rewards in nats, of variance 1 over the policy's samples; nets by setting, then seed."""
        reward = gold_reward(found)
        return reward / self.unit.repeat(len(reward) // len(self.seeds))[:, None]

    def save(self, path: Path) -> None:
        """A world of one seed as a safetensors file."""
        nets, tensors = ({name: getattr(self, name) for name in names} for names in (_NETS, _TENSORS))
        save_world(path, nets, tensors)


_TENSORS = ("unit", "human", "candidates", "scores", "accuracy")
_NETS = ("policy", "ranker")


def load_worlds(files: Sequence[Path], seeds: Sequence[int]) -> World:
    """Saved worlds side by side."""
    found = Worlds.load(files)
    policy, ranker = (found.nets(name, SHAPE) for name in _NETS)
    return World(tuple(seeds), policy, ranker, *(found[name] for name in _TENSORS))


def make_world(seed: int, scale: Scale) -> World:
    """The world of one seed."""
    policy = list_completion.imitator(seed, steps=scale.imitation)
    draw = torch_generator(seed, "pairs")
    samples = _answers(policy, list_completion.make_prompts(1000, draw), draw)
    unit = gold_reward(_traits(samples)).std()
    human = _human_pairs(seed, policy, float(unit), scale)
    ranker = _ranker(seed, policy, human, scale)
    prompts = list_completion.make_prompts(scale.prompts, draw).repeat_interleave(scale.candidates, 0)
    candidates = _answers(policy, prompts, draw).unflatten(0, (scale.prompts, scale.candidates))
    with torch.no_grad():
        scores = mean_scores_of(ranker, candidates.flatten(0, 1)[None], PROMPT).view(candidates.shape[:2])
    gold = gold_reward(_traits(candidates))
    better = gold[:, ::2] != gold[:, 1::2]
    agree = (scores[:, ::2] > scores[:, 1::2]) == (gold[:, ::2] > gold[:, 1::2])
    tensors = (unit, human, candidates, scores, agree[better].float().mean())
    return World((seed,), policy, ranker, *(value[None] for value in tensors))


def paired(world: World, source: Source, beta: float, scale: Scale) -> Pairs:
    """Pairs of every seed: the human ones, or of accepted candidates, labelled by the ranker; equally many of either."""
    pairs = scale.prompts * scale.accepted // 2
    if source == "direct":
        return world.human[:, :pairs]
    return torch.stack([_of_candidates(world, place, beta, scale) for place in range(len(world.seeds))])


def chosen_answers(world: World, threshold: float | None) -> list[Int[Tensor, "answers length"]]:
    """What each seed imitates: the best candidate of every prompt (RAFT), or all above a scaled threshold (ReST)."""
    found = []
    for place, seed in enumerate(world.seeds):
        scores, candidates = world.scores[place].numpy(), world.candidates[place]
        if threshold is None:
            found.append(candidates[torch.arange(len(candidates)), torch.tensor(best_of(scores, seed=seed))])
        else:
            found.append(candidates[torch.tensor(above_scaled(scores, threshold))])
    return found


def train_on_pairs(
    world: World, pairs: Sequence[Pairs], objectives: Sequence[RSO], rates: Sequence[float], scale: Scale
) -> Decoders:
    """Nets by setting, then seed; a setting has its pairs, its loss and its learning rate, which falls linearly to 0."""
    reference = world.policy.take(list(range(len(world.seeds))) * len(objectives))
    policy = reference.trainable()
    adam = Adam(policy, by_setting(len(policy), rates))
    both = torch.cat(list(pairs))
    order = _orders(world, both.shape[1], scale.steps * scale.batch, len(objectives))
    for step in range(scale.steps):
        rows = order[:, step * scale.batch : (step + 1) * scale.batch]
        met = both.gather(1, rows[..., None, None].expand(-1, -1, *both.shape[2:]))
        chosen, rejected = met.unbind(2)
        with torch.no_grad():
            known = summed_logps(reference, torch.cat([chosen, rejected], 1), PROMPT).chunk(2, 1)
        batch = pair_logps(policy, chosen, rejected, PROMPT, (known[0], known[1]))
        adam.step(loss_by_setting(batch, objectives, len(policy)), factor=1 - step / scale.steps)
    return policy.take(range(len(policy)))


def imitate_chosen(
    world: World, answers: Sequence[Int[Tensor, "answers length"]], rates: Sequence[float], scale: Scale
) -> Decoders:
    """Supervised training on each seed's answers at every rate, as many answers a step as pairs have."""
    wanted = scale.steps * 2 * scale.batch
    orders = [_repeated(len(each), wanted, seed) for each, seed in zip(answers, world.seeds, strict=True)]

    def batch(step: int) -> Tensor:
        rows = slice(step * 2 * scale.batch, (step + 1) * 2 * scale.batch)
        return torch.stack([each[order[rows]] for each, order in zip(answers, orders, strict=True)] * len(rates))

    nets = world.policy.take(list(range(len(world.seeds))) * len(rates))
    return imitate(nets, batch, PROMPT, steps=scale.steps, rate=by_setting(len(nets), rates))


def judged(world: World, policy: Decoders, scale: Scale) -> dict[str, Float[Tensor, " nets"]]:
    """Gold and proxy win rates against a sample of the supervised policy, KL, and traits, on held-out prompts."""
    repeats = len(policy) // len(world.seeds)
    seeds, places = list(world.seeds) * repeats, list(range(len(world.seeds))) * repeats
    start, ranker = world.policy.take(places), world.ranker.take(places)
    prompts = list_completion.prompts_of(seeds, scale.judged, "held out")
    kl, written = kl_of(policy, start, prompts, STEPS, list_completion.numbers_of(seeds, scale.judged, "own"))
    other = start.sample(prompts, STEPS, list_completion.numbers_of(seeds, scale.judged, "other"))
    with torch.no_grad():
        proxies = [mean_scores_of(ranker, each.tokens, PROMPT) for each in (written, other)]
    golds = [world.gold(list_completion.traits_of(each)) for each in (written, other)]
    found = list_completion.traits_of(written)
    wins = {"gold_win": _wins(*golds), "proxy_win": _wins(*proxies)}
    return wins | {
        "gap": wins["proxy_win"] - wins["gold_win"],
        "gold": (golds[0] - golds[1]).mean(1),
        "proxy": (proxies[0] - proxies[1]).mean(1),
        "kl": kl,
        "covered": found.covered.mean(1),
        "repeats": found.repeats.mean(1),
        "tokens": found.tokens.mean(1),
    }


def _wins(first: Float[Tensor, "nets rows"], second: Float[Tensor, "nets rows"]) -> Float[Tensor, " nets"]:
    return ((first > second).float() + 0.5 * (first == second)).mean(1)


def _traits(tokens: Int[Tensor, "*shape length"]) -> Traits:
    return traits(tokens[..., :PROMPT], tokens[..., PROMPT:])


def _answers(
    policy: Decoders, prompts: Int[Tensor, "rows prompt"], draw: torch.Generator, temperature: float = 1.0
) -> Int[Tensor, "rows length"]:
    return policy.sample(prompts[None], STEPS, draw, temperature=temperature).tokens[0]


def _human_pairs(seed: int, policy: Decoders, unit: float, scale: Scale) -> Int[Tensor, "pairs two length"]:
    """Answers of a worse policy and of a noisy one, labelled with the probability sigmoid(gold difference)."""
    draw = torch_generator(seed, "human pairs")
    worse = list_completion.imitator(seed, steps=scale.worse_imitation)
    prompts = list_completion.make_prompts(scale.human_pairs, draw)
    first, second = _answers(worse, prompts, draw), _answers(policy, prompts, draw, temperature=1.3)
    gap = (gold_reward(_traits(first)) - gold_reward(_traits(second))) / unit
    wins = (torch.rand(len(gap), generator=draw) < torch.sigmoid(gap))[:, None]
    return torch.stack([torch.where(wins, first, second), torch.where(wins, second, first)], 1)


def _ranker(seed: int, policy: Decoders, pairs: Int[Tensor, "pairs two length"], scale: Scale) -> Decoders:
    """Fitted from the policy's weights on; its score is the mean of what it says of every token."""
    draw = torch_generator(seed, "ranking model")

    def batch(step: int) -> tuple[Tensor, Tensor]:
        rows = pairs[torch.randint(len(pairs), (64,), generator=draw)]
        return rows[None, :, 0], rows[None, :, 1]

    return fit_scores(policy, batch, PROMPT, steps=scale.ranking_steps, rate=1e-3, score=mean_scores_of)


def _of_candidates(world: World, place: int, beta: float, scale: Scale) -> Int[Tensor, "pairs two length"]:
    """Rejection sampling among different candidates, and first-round ranking of what it accepts."""
    scores, candidates, seed = world.scores[place].numpy(), world.candidates[place], world.seeds[place]
    options = RejectionOptions(n_samples=scale.accepted, beta=beta)
    available = first_of_each(candidates[..., PROMPT:].tolist())
    available |= (available.sum(1) < scale.accepted)[:, None]  # too few different ones: doubles count
    accepted = rejection_sample(scores, options, seed=seed, available=available).indices
    ranked = rank_pairs(accepted, reward_labeller(scores), seed=seed)
    rows = np.arange(len(scores))[:, None]
    both = np.stack([ranked.chosen, ranked.rejected], -1)
    return candidates[torch.tensor(rows)[..., None], torch.tensor(both)].flatten(0, 1)


def _orders(world: World, count: int, wanted: int, settings: int) -> Int[Tensor, "nets wanted"]:
    return torch.stack([_repeated(count, wanted, seed) for seed in world.seeds] * settings)


def _repeated(count: int, wanted: int, seed: int) -> Int[Tensor, " wanted"]:
    """Places in random order, each once before any comes again."""
    draw = torch_generator(seed, "order")
    return torch.cat([torch.randperm(count, generator=draw) for _ in range(math.ceil(wanted / count))])[:wanted]
