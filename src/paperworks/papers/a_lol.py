"""A-LoL: improving language models with advantage-based offline policy gradients (Baheti et al. 2024, arXiv 2305.14718).

Leftover lunch: of answers that exist already, train on those that are better than what the model does by itself,
weighted by how much better and by a detached importance ratio. "By itself" is a value V(x), fitted on the reference's own
greedy answers; the reference is the model after imitating all of the data.

    -max(R - V, 0) clip(pi / pi_ref) log pi(y|x)        language/objectives/lol.py, AdvantageLoL

The experiment: answers of mixed quality from three writers, little noise or mostly noise, three rewards to be summed.
Every arm trains the same reference for as many steps on the same answers.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from paperworks.core.files import read_json, write_atomic, write_json_atomic
from paperworks.experiment.definition import Arm, Budget, Claim, Experiment, Metric, Part, Workspace
from paperworks.experiment.results import Results
from paperworks.language.data import Dataset, Scored
from paperworks.language.objectives.dpo import DPO
from paperworks.language.objectives.lol import (
    AdvantageLoL,
    AdvantageLoLKL,
    AdvantageLoLRefFree,
    AdvantageLoLSequence,
    RewardLoL,
)
from paperworks.language.objectives.objective import Objective
from paperworks.language.objectives.scored import FilteredNLL, RewardGOLD, WeightedBC
from paperworks.language.sampling import sample
from paperworks.language.testbeds import scored_reviews, tiny_alignment
from paperworks.language.testbeds.reviews import Review
from paperworks.language.tiny import TinySpec
from paperworks.language.training import TrainOptions

CONDITIONS = ("clean", "bad")
TRAINING, VALIDATION = 200, 75  # prompts; the other 75 are for testing
EACH = {"smoke": 2, "small": 12, "full": 24}  # answers a training prompt
START_EPOCHS = {"smoke": 0.5, "small": 8.0, "full": 8.0}
STEPS = {"smoke": 2, "small": 48, "full": 96}
SAMPLES = {"smoke": 1, "small": 4, "full": 8}  # a test prompt

Configuration = tuple[
    Callable[[str], Objective], float
]  # the objective, given the reference's scored answers; the rate

RATES = (5e-4, 1.5e-3, 5e-3)
RATES_ALONE = (3e-4, 6e-4, 1.2e-3, 2.5e-3, 5e-3, 1e-2)


def _alone(objective: Callable[[str], Objective]) -> list[Configuration]:
    """Six learning rates, for a loss without a second knob."""
    return [(objective, rate) for rate in RATES_ALONE]


def _knob(objective: Callable[[Any, str], Objective], values: Sequence[Any]) -> list[Configuration]:
    """Three learning rates by two values of the loss's own knob."""
    return [(functools.partial(objective, value), rate) for value in values for rate in RATES]


CLIPS = (0.9, None)
GRIDS: Mapping[str, list[Configuration]] = {
    "a-lol": _knob(lambda clip, file: AdvantageLoL(clip_eps=clip, value_data=file), CLIPS),
    "a-lol-ref-free": _alone(lambda file: AdvantageLoLRefFree(value_data=file)),
    "a-lol-seq": _knob(lambda clip, file: AdvantageLoLSequence(clip_eps=clip, value_data=file), CLIPS),
    "a-lol-kl": _knob(lambda beta, file: AdvantageLoLKL(kl_beta=beta, value_data=file), (0.02, 0.1)),
    "r-lol": _knob(lambda clip, _: RewardLoL(clip_eps=clip), CLIPS),
    "wbc": _alone(lambda _: WeightedBC()),
    "r-gold": _knob(lambda floor, _: RewardGOLD(floor=floor), (0.1, 0.3)),
    "nll": _alone(lambda _: FilteredNLL(keep_share=1.0)),
    "nll-top-half": _alone(lambda _: FilteredNLL(keep_share=0.5)),
    "dpo": _knob(lambda beta, _: DPO(beta=beta), (0.05, 0.2)),
    "a-lol-unfiltered": _knob(
        lambda clip, file: AdvantageLoL(
            clip_eps=clip, value_data=file, filter_negative=False, sampling_strategy="shuffle"
        ),
        CLIPS,
    ),
}

ARMS = (
    Arm("a-lol", "A-LoL", note="clip 0.9 or none"),
    Arm("a-lol-ref-free", "A-LoL (ref. free)", note="six learning rates"),
    Arm("a-lol-seq", "A-LoL sequence", note="clip 0.9 or none"),
    Arm("a-lol-kl", "A-LoL KL", note="kl_beta 0.02 or 0.1"),
    Arm("r-lol", "R-LoL", note="clip 0.9 or none"),
    Arm("wbc", "wBC", "baseline", note="six learning rates"),
    Arm("r-gold", "R-GOLD", "baseline", note="floor 0.1 or 0.3"),
    Arm("nll", "NLL, continued", "baseline", note="six learning rates"),
    Arm("nll-top-half", "NLL on the top half by reward", "baseline", note="six learning rates"),
    Arm("dpo", "DPO on better and worse answers", "baseline", note="beta 0.05 or 0.2"),
    Arm("a-lol-unfiltered", "A-LoL, negative advantages kept, no priority", "control", note="clip 0.9 or none"),
)


def prepare(seed: int, budget: Budget, workspace: Workspace) -> None:
    """Once a seed: prompts, and for each condition answers, the reference (NLL on them), and its own scored answers."""
    prompts = scored_reviews.prompts(seed)
    for condition in CONDITIONS:
        folder = workspace.seed_folder(seed) / condition
        answers = scored_reviews.write_answers(
            prompts[:TRAINING], seed, shares=scored_reviews.SHARES[condition], each=EACH[budget]
        )
        spec = TinySpec(**{**asdict(tiny_alignment.MODEL), "epochs": START_EPOCHS[budget], "batch_size": 32})
        start = tiny_alignment.make_start(folder, [Review(a.prompt, a.response) for a in answers], seed, spec=spec)
        _save(folder / "answers.jsonl", scored_reviews.scored(answers))
        validation = _shortened(prompts[TRAINING : TRAINING + VALIDATION], budget)
        greedy = sample(
            start, validation, max_new_tokens=tiny_alignment.MAX_NEW_TOKENS, temperature=0.0, batch_rows=512
        )
        own = [
            scored_reviews.Answer(prompt, drawn.texts[0], "noise")  # who wrote it does not enter
            for prompt, drawn in zip(validation, greedy, strict=True)
        ]
        _save(folder / "reference_answers.jsonl", scored_reviews.scored(own))
        test = _shortened(prompts[TRAINING + VALIDATION :], budget)
        measured, _ = tiny_alignment.measure(start, folder, test, scored_reviews.TOTAL, n=SAMPLES[budget], seed=seed)
        write_json_atomic(folder / "start.json", {"reward": measured.reward})


def cell(arm: Arm, setting: str, seed: int, budget: Budget, workspace: Workspace) -> dict[str, Any]:
    """Train every configuration of the arm, choose one by reward on validation prompts, measure it on test prompts."""
    folder, prompts = workspace.seed_folder(seed) / setting, scored_reviews.prompts(seed)
    validation = _shortened(prompts[TRAINING : TRAINING + VALIDATION], budget)
    test = _shortened(prompts[TRAINING + VALIDATION :], budget)
    rows = _load(folder / "answers.jsonl")
    data: Dataset[Any] = Dataset(tuple(scored_reviews.better_worse(rows)) if arm.name == "dpo" else tuple(rows))
    own = str(folder / "reference_answers.jsonl")
    by_configuration: list[float] = []
    best: tuple[Any, Mapping[str, Any]] | None = None
    for make, rate in GRIDS[arm.name][: 1 if budget == "smoke" else None]:
        options = TrainOptions(
            steps=STEPS[budget], batch_size=32, micro_batch=32, learning_rate=rate, select="last", seed=seed
        )
        policy, result = tiny_alignment.align(folder, make(own), data, options)
        found, _ = tiny_alignment.measure(policy, folder, validation, scored_reviews.TOTAL, n=2, seed=seed + 1)
        if best is None or found.reward > max(by_configuration):
            best = policy, result.preparation
        by_configuration.append(found.reward)
    assert best is not None
    policy, preparation = best
    aligned, texts = tiny_alignment.measure(policy, folder, test, scored_reviews.TOTAL, n=SAMPLES[budget], seed=seed)
    asked = [prompt for prompt in test for _ in range(SAMPLES[budget])]
    return {
        "reward": aligned.reward,
        "on_topic": _mean(scored_reviews.REWARDS["on_topic"](asked, texts)),
        "distinct_2": scored_reviews.distinct(texts),
        "tokens": aligned.tokens,
        "kl": aligned.kl,
        "start_reward": read_json(folder / "start.json")["reward"],
        "configuration": by_configuration.index(max(by_configuration)),
        "validation_by_configuration": by_configuration,
        "kept_share": preparation["kept"] / preparation["rows"] if "kept" in preparation else 1.0,
        "value_explained": preparation.get("value", {}).get("explained", math.nan),
    }


def figures(results: Results) -> list[tuple[str, str]]:
    """Reward, and diversity, of every arm: a dot a seed; and how far the seeds lie apart."""
    from paperworks.core import plots
    from paperworks.core.statistics import bootstrap_mean

    drawn = []
    for setting in PART.settings:
        for metric, label in (("reward", "reward of samples, of 3"), ("distinct_2", "distinct-2")):
            values = {arm.label: list(results.values("A", arm.name, metric, setting).values()) for arm in ARMS}
            rows = [plots.IntervalRow(name, bootstrap_mean(found), found) for name, found in values.items() if found]
            if not rows:
                continue
            spread = ", ".join(f"{row.name} {_deviation(row.values):.3f}" for row in rows if len(row.values) > 1)
            caption = f"{setting} data: {label}, a dot a seed" + (
                f"; standard deviation over seeds: {spread}" if spread else ""
            )
            drawn.append((plots.intervals(rows, label), caption))
    return drawn


def _shortened(prompts: Sequence[str], budget: Budget) -> Sequence[str]:
    return prompts[:5] if budget == "smoke" else prompts


def _save(path: Path, rows: Sequence[Scored]) -> None:
    lines = [json.dumps({"prompt": row.prompt, "response": row.response, "rewards": row.rewards}) for row in rows]
    write_atomic(path, "\n".join(lines) + "\n")


def _load(path: Path) -> list[Scored]:
    return [Scored(**json.loads(line)) for line in path.read_text().splitlines()]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _deviation(values: Sequence[float]) -> float:
    mean = _mean(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


PART = Part(
    name="A",
    title="Tiny language model, answers of mixed quality, three rewards",
    text="Prompts ask for one to three aspects of a film or hotel; good, average and noise writers answer 200 of them 12 times "
    "(shares 40/40/20% on clean data, 15/15/70% on bad data). Reward: on topic + no repetition + length in range, each in "
    "[0, 1]. The reference, a Llama of 2 layers and width 64, imitates all answers for 8 epochs; V is fitted on its greedy "
    "answers to 75 other prompts. Every arm then trains it for 48 steps of 32 (DPO: of 32 pairs) at six configurations, "
    "chosen by the reward of samples to those prompts and measured on samples to 75 more.",
    arms=ARMS,
    settings=CONDITIONS,
    seeds={"smoke": 1, "small": 5, "full": 10},
    prepare=prepare,
    cell=cell,
    metrics=(
        Metric("reward", "test reward"),
        Metric("on_topic", "of it on topic"),
        Metric("distinct_2", "distinct-2"),
        Metric("tokens", "tokens", higher_is_better=False, format=".1f"),
        Metric("kl", "KL to the reference", "nats", False, ".1f"),
        Metric("start_reward", "reference's reward"),
        Metric("kept_share", "rows kept", format=".2f"),
    ),
    figures=figures,
)

CLAIMS = (
    *(Claim("reward", "a-lol", than, "bad") for than in ("wbc", "nll", "r-lol", "r-gold")),
    Claim("reward", "a-lol", "nll-top-half", "bad"),
    Claim("reward", "a-lol", "dpo", "bad", expected="not shown"),
    Claim(
        "reward",
        "a-lol",
        "a-lol-unfiltered",
        "bad",
        text="with negative advantages kept and no priority sampling A-LoL is worse (an ablation)",
    ),
    *(Claim("reward", variant, "wbc", "bad") for variant in ("a-lol-ref-free", "a-lol-seq", "a-lol-kl")),
    *(Claim("reward", "a-lol", than, "clean") for than in ("wbc", "nll", "nll-top-half")),
    Claim("distinct_2", "a-lol", "dpo", "bad"),
)

EXPERIMENT = Experiment(
    slug="a-lol",
    title="Leftover Lunch: Advantage-based Offline Reinforcement Learning for Language Models",
    parts=(PART,),
    claims=CLAIMS,
    differences="A model of 0.1 million parameters on generated answers in place of LLaMA-7B on dialogue; the rewards that "
    "choose a configuration are those that judge it, on other prompts (the paper judges by a larger reward model). The "
    "reference's samples are measured, where V is fitted on its greedy answers, as released.",
    notes="Sampling by advantage and weighting by it, as released, counts an answer by its squared advantage. No figures of "
    "the paper stand here: none of its tables could be read.",
)
