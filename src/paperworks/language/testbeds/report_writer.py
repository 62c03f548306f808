"""A tiny model that writes mediocre reports: the start that experiments on reports align.

To write one it must copy from its prompt. At this width that is learnt within minutes of one core only from weights that
begin wider than a large model's do.
"""

from __future__ import annotations

from pathlib import Path

import torch

from paperworks.language.data import Dataset, Demonstration
from paperworks.language.objectives.sft import SFT
from paperworks.language.policy import Policy
from paperworks.language.testbeds import reports
from paperworks.language.tiny import TinySpec, byte_level_tokenizer, fresh_policy
from paperworks.language.training import TrainOptions, train

WRITER = TinySpec(
    layers=2, width=64, vocabulary=768, context=96, texts=3000, epochs=5.0, batch_size=32, learning_rate=5e-3
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
