"""Our reward modelling against TRL's RewardTrainer: the same weights and pairs give the same losses, step by step.

TRL gets our token ids, so that nothing but the loss, its gradient and the optimiser's steps is compared.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from paperworks.language.data import Dataset, Preference
from paperworks.language.objectives.reward_modelling import BradleyTerry
from paperworks.language.rewards.model import RewardModel
from paperworks.language.testbeds.reviews import generate_reviews
from paperworks.language.tiny import TinySpec, byte_level_tokenizer, fresh_policy
from paperworks.language.training import TrainOptions, train

trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")

STEPS, BATCH, RATE = 3, 4, 3e-3


@pytest.fixture
def model(tmp_path: Path) -> RewardModel:
    tokenizer = byte_level_tokenizer([p + r for p, r in generate_reviews(200, 0)], 400)
    policy = fresh_policy(TinySpec(layers=2, width=32, heads=2, context=256), tokenizer)
    return RewardModel.load(policy.save(tmp_path / "base"), device="cpu")


@pytest.mark.parametrize("centring", [0.0, 0.3])
@pytest.mark.parametrize("with_margins", [False, True])
def test_losses_agree_over_several_steps(
    model: RewardModel, centring: float, with_margins: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paperworks.language.training.Plan.rows", _in_order)
    first, second = generate_reviews(STEPS * BATCH, 5), generate_reviews(STEPS * BATCH, 6, clauses=(2, 4))
    rows = [
        Preference(a.prompt, a.response, b.response, margin=0.25 * (index % 5) if with_margins else None)
        for index, (a, b) in enumerate(zip(first, second, strict=True))
    ]
    other = copy.deepcopy(model.model)
    other.set_attn_implementation("sdpa")  # type: ignore[operator]
    theirs = _trl_losses(other, model, rows, centring, tmp_path)

    ours: list[float] = []
    options: dict[str, Any] = {"batch_size": BATCH, "learning_rate": RATE, "schedule": "constant", "warmup": 0.0}
    train(
        model,
        BradleyTerry(centring=centring),
        Dataset(tuple(rows)),
        TrainOptions(steps=STEPS, micro_batch=2, select="last", **options),
        on_step=lambda step, steps, values: ours.append(values["loss"]) if step else None,
    )
    assert ours == pytest.approx(theirs, abs=1e-4)
    assert ours[0] != pytest.approx(ours[-1], abs=1e-3)  # the weights moved, so later steps compare gradients too
    for mine, their in zip(model.model.parameters(), other.parameters(), strict=True):
        assert torch.allclose(mine, their, atol=2e-3)


def _in_order(self: Any, step: int) -> list[int]:
    return list(range(step * BATCH, (step + 1) * BATCH))


def _trl_losses(
    model: torch.nn.Module, ours: RewardModel, rows: list[Preference], centring: float, folder: Path
) -> list[float]:
    def ids(row: Preference, response: str) -> list[int]:
        return ours.encode_prompt(row.prompt) + ours.encode_response(response)

    lines = [
        {"chosen_ids": ids(row, str(row.chosen)), "rejected_ids": ids(row, str(row.rejected))}
        | ({} if row.margin is None else {"margin": row.margin})
        for row in rows
    ]
    config = trl.RewardConfig(
        output_dir=str(folder), use_cpu=True, learning_rate=RATE, max_steps=STEPS, per_device_train_batch_size=BATCH,
        lr_scheduler_type="constant", report_to=[], bf16=False, gradient_checkpointing=False, disable_tqdm=True,
        logging_steps=1, save_strategy="no", max_grad_norm=1.0, weight_decay=0.0, max_length=None,
        center_rewards_coefficient=centring or None,
    )  # fmt: skip
    table = datasets.Dataset.from_list(lines)
    trainer = trl.RewardTrainer(model, args=config, train_dataset=table, processing_class=ours.tokenizer)
    trainer._get_train_sampler = lambda *_: torch.utils.data.SequentialSampler(trainer.train_dataset)
    trainer.train()
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]
