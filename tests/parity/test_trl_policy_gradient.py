"""GRPO and RLOO against TRL 1.16: the same rollouts, rewards and reference through its trainers' own code.

TRL's `_generate_and_score_completions` forms advantages (and RLOO's KL in the reward), its `_compute_loss` the loss; ours
is the run's: `collect`, `credit`, `StepLosses`. Then the weights move, and both meet ratios that are not 1.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from paperworks.language.data.schemas import PromptRow
from paperworks.language.objectives.policy_gradient import GRPO, RLOO, Penalty, RolloutObjective
from paperworks.language.objectives.soft_preferences import OnlineDPO
from paperworks.language.online.batches import Batch, groups, judged, pairs
from paperworks.language.online.collecting import Draw, Models, collect
from paperworks.language.online.judges import RewardJudge
from paperworks.language.online.options import OnlineOptions
from paperworks.language.online.rollouts import Rollouts
from paperworks.language.policy import Policy
from paperworks.language.rewards.reward import CheckedReward
from paperworks.language.step_losses import StepLosses
from paperworks.language.testbeds.reviews import generate_reviews
from paperworks.language.tiny import TinySpec, byte_level_tokenizer, fresh_policy
from paperworks.language.train_options import TrainOptions

trl = pytest.importorskip("trl")

PROMPTS, SAMPLES, NEW_TOKENS, BETA = 3, 4, 6, 0.3


def vowels(prompts: list[str], responses: list[str]) -> list[float]:
    return [sum(letter in "aeiou" for letter in text) / max(1, len(text)) for text in responses]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = byte_level_tokenizer([p + r for p, r in generate_reviews(300, 0)], 400)
    tokenizer.padding_side = "left"
    policy = fresh_policy(TinySpec(layers=2, width=32, heads=2, context=128), tokenizer)
    with torch.no_grad():  # surer of itself than random weights are, so that answers and ratios differ
        policy.base.get_output_embeddings().weight.mul_(10)
    return policy.save(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="module")
def rollouts(folder: Path) -> Rollouts:
    """Answers of a policy that has moved a little from its reference, so that the KL terms are not zero."""
    policy = Policy.load(folder, device="cpu")
    reference = policy.reference()
    policy.base.generation_config.eos_token_id = list(range(0, 400, 12))  # so that some answers end early
    move(policy.model, seed=1)
    rows = [PromptRow(prompt=prompt) for prompt, _ in generate_reviews(PROMPTS, 5)]
    return collect(
        Models(policy, reference), rows, [Draw("policy", SAMPLES)], OnlineOptions(max_new_tokens=NEW_TOKENS),
        seed=0, iteration=0, reward=CheckedReward("vowels", vowels),
    )  # fmt: skip


def move(model: Any, seed: int | None, by: float = 0.02) -> None:
    if seed is None:
        return
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            parameter.add_(by * torch.randn(parameter.shape, generator=generator))


def padded(values: Tensor, rollouts: Rollouts) -> Tensor:
    """Token values as TRL has them, [answers, longest]."""
    parts = values.split([len(ids) for ids in rollouts.ids])
    return torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True)


def trainer_of(kind: str, folder: Path, rollouts: Rollouts, tmp_path: Path, **more: Any) -> Any:
    """TRL's trainer, its model at the weights that wrote the rollouts, told to "generate" those very answers."""
    from datasets import Dataset as Table
    from transformers import AutoTokenizer

    config_class, trainer_class = getattr(trl, f"{kind}Config"), getattr(trl, f"{kind}Trainer")
    config = config_class(
        output_dir=str(tmp_path), use_cpu=True, report_to=[], bf16=False, disable_tqdm=True, beta=BETA,
        per_device_train_batch_size=PROMPTS * SAMPLES, num_generations=SAMPLES, max_completion_length=NEW_TOKENS,
        **more,
    )  # fmt: skip
    trainer = trainer_class(
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        reward_funcs=lambda prompts, completions, **kwargs: vowels(prompts, completions),
        args=config,
        train_dataset=Table.from_list([{"prompt": prompt} for prompt in rollouts.prompts]),
        processing_class=AutoTokenizer.from_pretrained(folder, padding_side="left"),
    )
    move(trainer.model, seed=1)
    trainer.current_gradient_accumulation_steps = 1
    prompts = [list(rollouts.prompt_ids[group]) for group in rollouts.group.tolist()]
    answers, texts = [list(ids) for ids in rollouts.ids], list(rollouts.texts)
    if kind == "GRPO":
        written: tuple[Any, ...] = (prompts, answers, None, texts, None, {}, None, None)
    else:
        written = (prompts, answers, texts)
    trainer._generate = lambda prompts: written
    trainer.model.train()
    return trainer


def theirs(trainer: Any, rollouts: Rollouts, seed: int | None) -> tuple[Tensor, float, dict[str, Tensor]]:
    """TRL's advantages; its loss and gradient after the weights have moved."""
    asked = [{"prompt": rollouts.prompts[group]} for group in rollouts.group.tolist()]
    inputs = trainer._generate_and_score_completions(asked)
    if "old_logps" not in inputs:  # left out where the weights will not have moved
        inputs["old_per_token_logps"] = padded(rollouts.logps, rollouts)
    move(trainer.model, seed)
    loss = trainer.compute_loss(trainer.model, inputs)
    loss.backward()
    return inputs["advantages"], float(loss.detach()), gradients(trainer.model)


def gradients(model: Any) -> dict[str, Tensor]:
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def ours(
    objective: RolloutObjective, folder: Path, rollouts: Rollouts, seed: int | None
) -> tuple[Tensor, float, dict[str, Tensor]]:
    policy = Policy.load(folder, device="cpu")
    move(policy.model, seed=1)
    move(policy.model, seed)
    credit = objective.credit(rollouts, Penalty(BETA))
    batch: Batch = groups(rollouts, credit)
    losses = StepLosses(policy, objective, TrainOptions(micro_batch=2), lambda values: values)
    values = losses.means(batch.items, range(PROMPTS), batch.reference, backward=True)
    first = torch.tensor([0, *rollouts.counts.cumsum(0)[:-1].long().tolist()])
    return credit["advantage"][first], values["loss"], gradients(policy.model)


CASES: list[tuple[str, RolloutObjective, dict[str, Any]]] = [
    ("GRPO", GRPO(beta=BETA, weigh_kl=True), {"loss_type": "grpo"}),
    ("GRPO", GRPO(beta=BETA, averaging="token"), {"loss_type": "bnpo", "use_bias_correction_kl": False}),
    (
        "GRPO",
        GRPO(beta=BETA, averaging="token", scale_rewards=False, clip=0.05, weigh_kl=True),
        {"loss_type": "dapo", "scale_rewards": "none", "epsilon": 0.05},
    ),
    ("RLOO", RLOO(), {}),
    ("RLOO", RLOO(clip=0.05), {"epsilon": 0.05}),
]


@pytest.mark.parametrize("moved", [True, False])
@pytest.mark.parametrize(
    ("kind", "objective", "options"), CASES, ids=lambda each: each if isinstance(each, str) else ""
)
def test_advantages_loss_and_gradient_are_trl_s(
    kind: str,
    objective: RolloutObjective,
    options: dict[str, Any],
    moved: bool,
    folder: Path,
    rollouts: Rollouts,
    tmp_path: Path,
) -> None:
    seed = 2 if moved else None
    trainer = trainer_of(kind, folder, copy.copy(rollouts), tmp_path, **options)
    their_advantage, their_loss, their_gradient = theirs(trainer, rollouts, seed)
    advantage, loss, gradient = ours(objective, folder, rollouts, seed)
    torch.testing.assert_close(advantage, their_advantage, atol=2e-4, rtol=1e-4)
    assert loss == pytest.approx(their_loss, abs=2e-5)
    assert gradient.keys() == their_gradient.keys()
    for name, found in gradient.items():
        torch.testing.assert_close(found, their_gradient[name], atol=2e-5, rtol=2e-3, msg=name)


def test_ratios_and_clipping_were_met(folder: Path, rollouts: Rollouts) -> None:
    """The cases above see answers of several lengths, ratios off 1, and clipped ones."""
    assert len({len(ids) for ids in rollouts.ids}) > 1 and float(rollouts.log_ratio.abs().max()) > 0.05
    policy = Policy.load(folder, device="cpu")
    move(policy.model, seed=1)
    move(policy.model, seed=2)
    objective = GRPO(beta=BETA, clip=0.05)
    batch = groups(rollouts, objective.credit(rollouts, Penalty(BETA)))
    losses = StepLosses(policy, objective, TrainOptions(micro_batch=2), lambda values: values)
    assert 0.05 < losses.means(batch.items, range(PROMPTS), batch.reference, backward=False)["clipped"] < 0.95


def test_online_dpo_s_gradient_is_trl_s(folder: Path, rollouts: Rollouts, tmp_path: Path) -> None:
    """A step of TRL's experimental trainer on the first two answers of each prompt, the higher reward chosen."""
    from datasets import Dataset as Table
    from transformers import AutoTokenizer

    experimental = pytest.importorskip("trl.experimental.online_dpo")
    two = rollouts.select([index for members in rollouts.members() for index in members[:2]])
    first, second = list(range(0, 2 * PROMPTS, 2)), list(range(1, 2 * PROMPTS, 2))
    config = experimental.OnlineDPOConfig(
        output_dir=str(tmp_path), use_cpu=True, report_to=[], bf16=False, disable_tqdm=True, beta=BETA,
        per_device_train_batch_size=PROMPTS, max_new_tokens=NEW_TOKENS, missing_eos_penalty=None,
    )  # fmt: skip
    trainer = experimental.OnlineDPOTrainer(
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        ref_model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(),
        reward_funcs=lambda prompts, completions, **kwargs: vowels(prompts, completions),
        args=config,
        train_dataset=Table.from_list([{"prompt": prompt} for prompt in two.prompts]),
        processing_class=AutoTokenizer.from_pretrained(folder, padding_side="left"),
    )
    move(trainer.model, seed=1)
    order = first + second
    longest = max(map(len, two.prompt_ids))
    pad = trainer.processing_class.pad_token_id
    asked = [two.prompt_ids[int(two.group[index])] for index in order]
    prompt_ids = torch.tensor([[pad] * (longest - len(ids)) + list(ids) for ids in asked])
    prompt_mask = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in asked])
    answers = [torch.tensor(two.ids[index]) for index in order]
    completion_ids = torch.nn.utils.rnn.pad_sequence(answers, batch_first=True, padding_value=pad)
    completion_mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(ids) for ids in answers], batch_first=True)
    trainer._generate = lambda *args: (prompt_ids, prompt_mask, completion_ids, completion_mask, None)
    their_loss = trainer.training_step(trainer.model, {"prompt": list(two.prompts)})

    policy = Policy.load(folder, device="cpu")
    move(policy.model, seed=1)
    objective, judge = OnlineDPO(beta=BETA), RewardJudge(CheckedReward("vowels", vowels), slope=math.inf)
    candidates = list(zip(first, second, strict=True))
    probabilities = judged(two, candidates, judge)
    assert 0.5 not in probabilities
    batch = pairs(two, candidates, probabilities)
    losses = StepLosses(policy, objective, TrainOptions(micro_batch=2), lambda values: values)
    values = losses.means(batch.items, range(PROMPTS), batch.reference, backward=True)
    assert values["loss"] == pytest.approx(float(their_loss), abs=1e-5)
    wanted = gradients(trainer.model)
    for name, found in gradients(policy.model).items():
        torch.testing.assert_close(found, wanted[name], atol=2e-5, rtol=2e-3, msg=name)
