"""Training an ensemble of reward models in one run, against as many separate runs: same rows, steps and options; in turn.

Separate runs are what users would do: K times `train` with another seed. The ensemble is measured as its default has it
(own top layers on a frozen lower part in deep models), with a trained shared part, and as heads alone. Printed beside the
ratio: held-out accuracy of the mean, and how the members' scores correlate, for a faster ensemble that agrees with itself
everywhere is worth less. Loading models is not counted. A training too short for either to learn still has its honest speed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

import numpy as np
import torch

from paperworks.language.data import Dataset, Preference
from paperworks.language.objectives.reward_modelling import BradleyTerry
from paperworks.language.rewards.model import RewardModel
from paperworks.language.testbeds import reviews
from paperworks.language.training import TrainOptions, train

HELD_OUT = 200


def pairs(count: int) -> list[Preference]:
    """Reviews of three to six clauses, the kinder one chosen."""
    rows = []
    for first, second in zip(
        reviews.generate_reviews(3 * count, 1, clauses=(3, 6)), reviews.generate_reviews(3 * count, 2, clauses=(3, 6))
    ):
        kinder = reviews.leaning([first.prompt] * 2, [first.response, second.response])
        if kinder[0] != kinder[1]:
            chosen, rejected = (first, second) if kinder[0] > kinder[1] else (second, first)
            rows.append(Preference(first.prompt, chosen.response, rejected.response))
    return rows[:count]


def scores(models: Sequence[RewardModel], rows: Sequence[Preference]) -> np.ndarray:
    """[members, 2, rows]: of chosen and rejected responses."""
    prompts = [row.prompt for row in rows] * 2
    responses = [row.chosen for row in rows] + [row.rejected for row in rows]
    found = [model.member_scores(model.encode(prompts, responses)).T.numpy() for model in models]
    return np.concatenate(found).reshape(-1, 2, len(rows))


def described(found: np.ndarray) -> str:
    flat = found.reshape(len(found), -1)
    standard = (flat - flat.mean(1, keepdims=True)) / flat.std(1, keepdims=True)
    margins = standard.reshape(found.shape)[:, 0] - standard.reshape(found.shape)[:, 1]
    correlation = np.corrcoef(flat)[np.triu_indices(len(found), 1)].mean()
    return f"accuracy of the mean {(margins.mean(0) > 0).mean():.3f}, members' correlation {correlation:.3f}"


def timed(name: str, seeds: Sequence[int], objective: BradleyTerry, rows: Dataset, options: dict) -> tuple[float, list]:
    """Seconds of training one model a seed, and the models."""
    seconds, models = 0.0, []
    for seed in seeds:
        model = RewardModel.load(name, device="cpu", seed=seed)
        began = time.perf_counter()
        train(model, objective, rows, TrainOptions(seed=seed, **options))
        seconds += time.perf_counter() - began
        models.append(model)
    return seconds, models


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--members", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6, help="optimiser steps of every run")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = pairs(args.steps * args.batch_size + HELD_OUT)
    held_out, training = rows[:HELD_OUT], Dataset(tuple(rows[HELD_OUT:]))
    options = {
        "steps": args.steps,
        "batch_size": args.batch_size,
        "micro_batch": args.batch_size,
        "learning_rate": args.learning_rate,
        "select": "last",
        "schedule": "constant",
        "warmup": 0.0,
    }
    kinds = {
        "default": BradleyTerry(ensemble=args.members),
        "trained shared part": BradleyTerry(ensemble=args.members, freeze_shared=False),
        "heads alone": BradleyTerry(ensemble=args.members, member_layers=0),
    }
    ratios: dict[str, list[float]] = {name: [] for name in kinds}
    for turn in range(args.turns):
        apart, models = timed(args.model, range(args.members), BradleyTerry(), training, options)
        if turn == 0:
            print(f"{args.members} separate runs: {apart:.1f} s, {described(scores(models, held_out))}", flush=True)
        del models
        for name, objective in kinds.items():
            together, made = timed(args.model, [0], objective, training, options)
            ratios[name].append(apart / together)
            if turn == 0:
                print(f"one run, {name}: {together:.1f} s, {described(scores(made, held_out))}", flush=True)
            del made
    for name, found in ratios.items():
        spread = f"[{min(found):.2f}, {max(found):.2f}]"
        print(f"{args.members} members, {args.model}, {name}: {statistics.median(found):.2f}x {spread}")
    return 0 if statistics.median(ratios["default"]) >= 2.5 else 1


if __name__ == "__main__":
    raise SystemExit(main())
