"""Aligning a tiny language model: a start fitted to generated reviews, pairs sampled from it, training, measuring.

What small experiments share. A seed fixes the start, the pairs and the prompts; an arm changes only what is trained on
them. Everything goes through the parts that users use: `train`, `sample_report`, the objectives.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from paperworks.core.files import write_atomic
from paperworks.core.seeding import torch_generator
from paperworks.language.data import Dataset, Preference
from paperworks.language.evaluation import sample_report
from paperworks.language.objectives.objective import Objective
from paperworks.language.policy import Policy
from paperworks.language.rewards.reward import Reward
from paperworks.language.sampling import sample
from paperworks.language.testbeds.reviews import Review
from paperworks.language.tiny import TinySpec, train_tiny
from paperworks.language.training import TrainOptions, TrainResult, train

MODEL = TinySpec(layers=2, width=64, heads=4, vocabulary=768, context=128, epochs=3.0)
MAX_NEW_TOKENS = 48


@dataclass(frozen=True)
class Aligned:
    """What an alignment came to: means over samples of held-out prompts."""

    reward: float  # gold
    kl: float  # nats a response, to the start
    tokens: float  # a response
    capped: float  # share of responses that did not end by themselves


def make_start(folder: Path, reviews: Sequence[Review], seed: int, *, spec: TinySpec = MODEL) -> Policy:
    """Fit a tiny policy to the reviews and save it as `folder/start`."""
    policy = train_tiny(reviews, TinySpec(**{**asdict(spec), "seed": seed}), name="start")
    policy.save(folder / "start")
    return policy


def load_start(folder: Path) -> Policy:
    """The policy that `make_start` saved."""
    return Policy.load(folder / "start", device="cpu")


def sample_two(policy: Policy, prompts: Sequence[str], pairs: int, seed: int) -> tuple[list[str], list[str], list[str]]:
    """`pairs` prompts drawn from `prompts`, and two responses of the policy to each."""
    draw = torch.randint(0, len(prompts), (pairs,), generator=torch_generator(seed, "pair prompts")).tolist()
    of = [prompts[i] for i in draw]
    drawn = sample(policy, of, n=2, max_new_tokens=MAX_NEW_TOKENS, seed=seed, batch_rows=512)
    return of, [found.texts[0] for found in drawn], [found.texts[1] for found in drawn]


def save_rows(path: Path, rows: Sequence[Preference]) -> None:
    """Write preference rows as JSON lines, in a form that `load_rows` and users read."""
    lines = [json.dumps({"prompt": r.prompt, "chosen": r.chosen, "rejected": r.rejected}) for r in rows]
    write_atomic(path, "\n".join(lines) + "\n")


def load_rows(path: Path) -> Dataset[Preference]:
    """The rows that `save_rows` wrote."""
    return Dataset(tuple(Preference(**json.loads(line)) for line in path.read_text().splitlines()))


def align(
    folder: Path, objective: Objective, rows: Dataset[Any], options: TrainOptions, **more: Any
) -> tuple[Policy, TrainResult]:
    """Train the start of `folder` with `objective`; returns the policy and what training said."""
    policy = load_start(folder)
    return policy, train(policy, objective, rows, options, cache_reference=objective.needs_reference, **more)


def measure(
    policy: Policy, folder: Path, prompts: Sequence[str], reward: Reward, *, n: int, seed: int
) -> tuple[Aligned, list[str]]:
    """Sample `n` responses to each prompt and measure them against the start; also returns the texts."""
    start = load_start(folder)
    report = sample_report(policy, start, list(prompts), [reward], n, seed, MAX_NEW_TOKENS, batch_rows=512)
    rows, count = report.rows, len(report.rows)
    aligned = Aligned(
        reward=sum(row.rewards[reward.name] for row in rows) / count,
        kl=sum(row.log_ratio or 0.0 for row in rows) / count,
        tokens=sum(row.tokens for row in rows) / count,
        capped=sum(not row.finished for row in rows) / count,
    )
    return aligned, [row.text for row in rows]


def objective_loss(policy: Policy, folder: Path, objective: Objective, rows: Dataset[Any]) -> float:
    """The mean loss of `objective` on held-out rows, the start as reference (nothing trains)."""
    from paperworks.language.items import score, tokenise
    from paperworks.language.objectives.objective import ResponseLogps, StepInputs

    items = tokenise(rows, policy, objective.roles)
    trees = [item.tree() for item in items.items]
    width = len(objective.roles)
    sums, counts = (part.view(-1, width) for part in score(policy, trees))
    reference = score(load_start(folder), trees)[0].view(-1, width)
    scores = {role: ResponseLogps(sums[:, i], counts[:, i], reference[:, i]) for i, role in enumerate(objective.roles)}
    weight = torch.tensor([item.weight for item in items.items])
    batch = objective.batch(scores, StepInputs(weight))
    terms, weights = objective.terms(batch), objective.weights(batch)
    return sum(float((terms[name] * weights[name]).sum() / weights[name].sum()) for name in terms)


def at_kl(target: float, points: Sequence[Aligned], measure: str) -> float:
    """A measure at `target` nats, linear in KL between the points on either side; NaN where none goes so far.

    Give the start among the points (0 nats): it belongs to every objective.
    """
    ordered = sorted(points, key=lambda point: point.kl)
    for below, above in itertools.pairwise(ordered):
        if below.kl <= target <= above.kl and above.kl > below.kl:
            share = (target - below.kl) / (above.kl - below.kl)
            low, high = getattr(below, measure), getattr(above, measure)
            return float(low + share * (high - low))
    return math.nan


def named(prefix: str, aligned: Aligned) -> Mapping[str, float]:
    """The measures with a prefix: `PREFIX_reward`, …"""
    return {f"{prefix}_{name}": value for name, value in asdict(aligned).items()}
