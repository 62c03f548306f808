"""A tiny model that writes mediocre reports: the start that experiments on reports align.

To write one it must copy from its prompt. At this width that is learnt within minutes of one core only from weights that
begin wider than a large model's do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from paperworks.core.statistics import spearman
from paperworks.language.data import Dataset, Demonstration
from paperworks.language.degrees import LadderOptions, build_ladder
from paperworks.language.items import score
from paperworks.language.logprobs import Tree
from paperworks.language.objectives.sft import SFT
from paperworks.language.policy import Policy
from paperworks.language.testbeds import reports
from paperworks.language.tiny import TinySpec, byte_level_tokenizer, fresh_policy
from paperworks.language.training import TrainOptions, train

WRITER = TinySpec(
    layers=2, width=64, vocabulary=768, context=96, texts=3000, epochs=6.0, batch_size=32, learning_rate=5e-3
)
INITIAL_SCALE = 5.0  # times the usual standard deviation of 0.02: about 0.1, near 1 / sqrt(width)


def make_writer(folder: Path, seed: int, spec: TinySpec = WRITER) -> Policy:
    """Fit a policy to `spec.texts` mediocre reports and save it as `folder/start` (see `tiny_alignment.load_start`)."""
    written = reports.generate_reports(spec.texts, seed)
    tokenizer = byte_level_tokenizer([report.prompt + report.response for report in written], spec.vocabulary)
    policy = fresh_policy(
        TinySpec(
            layers=spec.layers,
            width=spec.width,
            heads=spec.heads,
            vocabulary=spec.vocabulary,
            context=spec.context,
            seed=seed,
        ),
        tokenizer,
        name="start",
    )
    with torch.no_grad():
        for weights in policy.model.parameters():
            if weights.dim() > 1:
                weights.mul_(INITIAL_SCALE)
    rows = [Demonstration(prompt=report.prompt, response=report.response) for report in written]
    options = TrainOptions(
        epochs=spec.epochs,
        batch_size=spec.batch_size,
        micro_batch=spec.batch_size,
        learning_rate=spec.learning_rate,
        warmup=0.05,
        select="last",
        seed=seed,
    )
    train(policy, SFT(), Dataset(tuple(rows)), options)
    policy.save(folder / "start")
    return policy


def degree_correlation(
    policy: Policy, start: Policy, held_out: Sequence[reports.Report], options: LadderOptions
) -> float:
    """Spearman's correlation, in [-1, 1], of facts removed with the fall of log pi - log pi_start; a mean over ladders.

    1 where the implicit reward falls with every fact that a version of a report lacks. A report without a ladder, or whose
    versions all state as many facts of the prompt, is left out; NaN where that leaves none, or the two models are one.
    """
    trees, removed = [], []
    for report in held_out:
        ladder = build_ladder(report.response, options)
        if ladder is None:
            continue
        texts = [version.text for version in ladder.versions]
        facts = [reports.coverage(report.prompt, text).correct for text in texts]
        trees.append(Tree(policy.encode_prompt(report.prompt), policy.encode_responses(texts)))
        removed.append([facts[0] - stated for stated in facts])
    falls = (score(start, trees)[0] - score(policy, trees)[0]).split([len(each) for each in removed])
    found = [spearman(gone, fall.tolist()) for gone, fall in zip(removed, falls, strict=True)]
    found = [value for value in found if not math.isnan(value)]
    return math.fsum(found) / len(found) if found else math.nan
