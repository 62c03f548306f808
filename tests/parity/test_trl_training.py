"""Our loop against TRL's DPOTrainer, step by step: the same weights, pairs and optimiser give the same losses."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from paperworks.language.data import Dataset, Preference
from paperworks.language.objectives import make
from paperworks.language.policy import Policy
from paperworks.language.testbeds.reviews import generate_reviews
from paperworks.language.tiny import TinySpec, byte_level_tokenizer, fresh_policy
from paperworks.language.training import TrainOptions, train

trl = pytest.importorskip("trl")

STEPS, BATCH, RATE = 4, 4, 3e-3


@pytest.mark.parametrize(
    ("name", "options", "theirs"),
    [
        ("dpo", {"beta": 0.3}, {"loss_type": ["sigmoid"], "beta": 0.3}),
        ("rdpo", {"beta": 0.3, "flip_rate": 0.2}, {"loss_type": ["robust"], "beta": 0.3, "label_smoothing": 0.2}),
        ("ln-dpo", {"beta": 2.0}, {"loss_type": ["sigmoid_norm"], "beta": 2.0}),
    ],
)
def test_losses_agree_over_several_steps(
    name: str, options: dict[str, Any], theirs: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paperworks.language.training.Plan.rows", _in_order)
    first, second = generate_reviews(STEPS * BATCH, 5), generate_reviews(STEPS * BATCH, 6, clauses=(2, 4))
    rows = [Preference(prompt=a.prompt, chosen=a.response, rejected=b.response) for a, b in zip(first, second)]
    tokenizer = byte_level_tokenizer([p + r for p, r in itertools.chain(first, second)], 400)
    policy = fresh_policy(TinySpec(layers=2, width=32, heads=2, context=256), tokenizer)
    other = copy.deepcopy(policy.model)
    other.set_attn_implementation("sdpa")

    ours: list[float] = []
    train(
        policy,
        make(name, options),
        Dataset(tuple(rows)),
        TrainOptions(
            steps=STEPS,
            batch_size=BATCH,
            micro_batch=2,
            learning_rate=RATE,
            schedule="constant",
            warmup=0.0,
            select="last",
        ),
        on_step=lambda step, steps, values: ours.append(values["loss"]) if step else None,
    )
    assert ours == pytest.approx(_trl_losses(other, policy, rows, theirs, tmp_path), abs=1e-4)
    assert ours[0] != pytest.approx(ours[-1], abs=1e-3)  # the weights moved, so later steps compare more than the start


def _in_order(self: Any, step: int) -> list[int]:
    return list(range(step * BATCH, (step + 1) * BATCH))


def _trl_losses(
    model: torch.nn.Module, policy: Policy, rows: list[Preference], options: dict[str, Any], folder: Path
) -> list[float]:
    import datasets

    table = datasets.Dataset.from_list([{k: getattr(r, k) for k in ("prompt", "chosen", "rejected")} for r in rows])
    config = trl.DPOConfig(
        output_dir=str(folder), use_cpu=True, learning_rate=RATE, max_steps=STEPS, per_device_train_batch_size=BATCH,
        lr_scheduler_type="constant", report_to=[], bf16=False, gradient_checkpointing=False, disable_tqdm=True,
        logging_steps=1, save_strategy="no", max_grad_norm=1.0, weight_decay=0.0, max_length=None, **options,
    )  # fmt: skip
    start = copy.deepcopy(model)
    trainer = trl.DPOTrainer(model, start, args=config, train_dataset=table, processing_class=policy.tokenizer)
    trainer._get_train_sampler = lambda *_: torch.utils.data.SequentialSampler(trainer.train_dataset)
    trainer.train()
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]
