"""The same losses as TRL 1.16, by calling its own loss code on the same log-probabilities, and on a real training step.

TRL's `hinge` is hinge-norm, its `ipo` the averaged form, its `sigmoid_norm` ln-dpo; CPO's `simpo` takes gamma itself.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from paperworks.language.objectives import (
    CPO,
    DPO,
    IPO,
    KTO,
    LNDPO,
    ORPO,
    RPO,
    SFT,
    DemonstrationLogps,
    FeedbackLogps,
    HingeNorm,
    Objective,
    PairLogps,
    ResponseLogps,
    RobustDPO,
    SimPO,
)
from paperworks.language.objectives.objective import StepInputs
from paperworks.language.objectives.unlearning_alternatives import DPOIDK, KTOIDK

pytest.importorskip("trl")

PAIRS, WIDTH, VOCABULARY = 6, 12, 17

PREFERENCE_LOSSES = [
    ("sigmoid", DPO(beta=0.3), {}),
    ("robust", RobustDPO(beta=0.3, flip_rate=0.2), {"label_smoothing": 0.2}),
    ("hinge", HingeNorm(beta=0.3), {}),
    ("ipo", IPO(tau=0.3, average=True), {}),
    ("sigmoid_norm", LNDPO(beta=3.0), {"beta": 3.0}),
]


LOSS_TYPES = [loss_type for loss_type, *_ in PREFERENCE_LOSSES]


def step_loss(objective: Objective, batch: Any) -> Tensor:
    """The weighted means of all terms, added, as the training loop forms them."""
    terms, weights = objective.terms(batch), objective.weights(batch)
    parts = [(weights[name] * terms[name]).sum() / weights[name].sum() for name in terms]
    return torch.stack(parts).sum()


def trainer_stub(trainer_class: type, **attributes: Any) -> Any:
    """A trainer that was never set up: only what its loss code reads."""
    accelerator = SimpleNamespace(
        device=torch.device("cpu"), gather=lambda value: value, gather_for_metrics=lambda value: value
    )
    trainer = object.__new__(trainer_class)
    shared = {
        "accelerator": accelerator,
        "model": SimpleNamespace(training=True),
        "aux_loss_enabled": False,
        "precompute_ref_logps": True,
        "label_smoothing": 0.0,
        "_metrics": {"train": defaultdict(list)},
        "_total_train_tokens": 0,
        "_tp_size": 1,
        "args": SimpleNamespace(),
    }
    for name, value in {**shared, **attributes}.items():
        setattr(trainer, name, value)
    return trainer


def completion_mask(rows: int, generator: torch.Generator) -> Tensor:
    """[rows, WIDTH], each row a prompt of 1-4 tokens, a completion of 1-7, padding."""
    start = torch.randint(1, 5, (rows, 1), generator=generator)
    length = torch.randint(1, 8, (rows, 1), generator=generator)
    place = torch.arange(WIDTH)
    return ((place >= start) & (place < start + length)).long()


def fused_outputs(log_probs: Tensor) -> SimpleNamespace:
    """What TRL's fused head returns, with these log-probabilities."""
    other = torch.zeros_like(log_probs)
    return SimpleNamespace(log_probs=log_probs, entropy=other, mean_logits=other, is_top1=other.bool())


def responses(per_token: Tensor, mask: Tensor, reference: Tensor | None = None) -> ResponseLogps:
    return ResponseLogps(per_token.sum(dim=1), mask[:, 1:].sum(dim=1).to(per_token.dtype), reference)


@pytest.fixture
def preference_step() -> dict[str, Any]:
    """Random log-probabilities of PAIRS pairs; TRL's batch is all chosen, then all rejected."""
    generator = torch.Generator().manual_seed(0)
    mask = completion_mask(2 * PAIRS, generator)
    shape = (2 * PAIRS, WIDTH - 1)
    leaf = (-3 * torch.rand(shape, generator=generator, dtype=torch.float64)).requires_grad_()
    reference = (-3 * torch.rand(shape, generator=generator, dtype=torch.float64) * mask[:, 1:]).sum(dim=1)
    return {"mask": mask, "leaf": leaf, "per_token": leaf * mask[:, 1:], "reference": reference}


def trl_preference_loss(step: dict[str, Any], loss_types: list[str], weights: list[float], **options: Any) -> Tensor:
    from trl import DPOTrainer

    trainer = trainer_stub(
        DPOTrainer,
        **{
            "beta": 0.3,
            "loss_types": loss_types,
            "loss_weights": weights,
            "ld_alpha": None,
            "f_divergence_type": "reverse_kl",
            "use_weighting": False,
            **options,
        },
    )
    inputs = {
        "input_ids": torch.ones_like(step["mask"]),
        "attention_mask": torch.ones_like(step["mask"]),
        "completion_mask": step["mask"],
        "ref_chosen_logps": step["reference"][:PAIRS],
        "ref_rejected_logps": step["reference"][PAIRS:],
    }
    return trainer._compute_loss(lambda **_: fused_outputs(step["per_token"]), inputs, False)


def our_pairs(step: dict[str, Any]) -> PairLogps:
    sides = [
        responses(step["per_token"][part], step["mask"][part], step["reference"][part])
        for part in (slice(PAIRS), slice(PAIRS, None))
    ]
    return PairLogps(*sides, weight=torch.ones(PAIRS, dtype=torch.float64))


def assert_same(ours: Tensor, theirs: Tensor, leaf: Tensor, tolerance: float = 1e-10) -> None:
    """Equal values and equal gradients in `leaf`."""
    assert theirs.item() != 0
    assert ours.item() == pytest.approx(theirs.item(), rel=tolerance, abs=tolerance)
    our_gradient, their_gradient = (torch.autograd.grad(loss, leaf, retain_graph=True)[0] for loss in (ours, theirs))
    assert their_gradient.abs().max() > 0
    assert torch.allclose(our_gradient, their_gradient, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("loss_type", "objective", "options"), PREFERENCE_LOSSES, ids=LOSS_TYPES)
def test_preference_losses(
    preference_step: dict[str, Any], loss_type: str, objective: Objective, options: dict[str, float]
) -> None:
    theirs = trl_preference_loss(preference_step, [loss_type], [1.0], **options)
    assert_same(step_loss(objective, our_pairs(preference_step)), theirs, preference_step["leaf"])


def test_token_mean_rpo_is_sigmoid_plus_sft(preference_step: dict[str, Any]) -> None:
    theirs = trl_preference_loss(preference_step, ["sigmoid", "sft"], [1.0, 0.2])
    ours = step_loss(RPO(beta=0.3, eta=0.2, sft_reduction="token_mean"), our_pairs(preference_step))
    assert_same(ours, theirs, preference_step["leaf"])


def test_sft_is_the_mean_over_all_tokens(preference_step: dict[str, Any]) -> None:
    theirs = trl_preference_loss(preference_step, ["sft"], [1.0])
    chosen = our_pairs(preference_step)
    ours = step_loss(SFT(), DemonstrationLogps(chosen.chosen, chosen.weight))
    assert_same(ours, theirs, preference_step["leaf"])


def test_preference_for_an_alternative_answer_is_dpo_scaled(preference_step: dict[str, Any]) -> None:
    theirs = 2 / 0.3 * trl_preference_loss(preference_step, ["sigmoid"], [1.0])
    pairs, objective = our_pairs(preference_step), DPOIDK(beta=0.3)
    scores = {"forget": pairs.rejected, "alternative": pairs.chosen}
    ours = step_loss(objective, objective.batch(scores, StepInputs(pairs.weight)))
    assert_same(ours, theirs, preference_step["leaf"])


def kto_step(rows: int, shift: float) -> dict[str, Any]:
    """Random log-probabilities of responses and of mismatched ones, whose mean log-ratio is `shift`."""
    generator = torch.Generator().manual_seed(1)
    mask, kl_mask = completion_mask(rows, generator), completion_mask(rows, generator)
    shape = (rows, WIDTH - 1)
    per_token = -3 * torch.rand(shape, generator=generator, dtype=torch.float64) * mask[:, 1:]
    mismatched = -3 * torch.rand(shape, generator=generator, dtype=torch.float64) * kl_mask[:, 1:]
    reference = (-3 * torch.rand(shape, generator=generator, dtype=torch.float64) * mask[:, 1:]).sum(dim=1)
    return {
        "mask": mask,
        "kl_mask": kl_mask,
        "per_token": per_token.requires_grad_(),
        "mismatched": mismatched,
        "reference": reference,
        "mismatched_reference": mismatched.sum(dim=1) - shift,
    }


def trl_kto_loss(step: dict[str, Any], desirable: Tensor, **weights: float) -> Tensor:
    from trl import KTOTrainer

    ids = torch.ones_like(step["mask"])
    kl_ids = torch.full_like(ids, 2)
    trainer = trainer_stub(KTOTrainer, beta=0.3, loss_type="kto", calculate_KL=True, **weights)
    inputs = {
        "input_ids": ids,
        "attention_mask": ids,
        "completion_mask": step["mask"],
        "KL_input_ids": kl_ids,
        "KL_attention_mask": ids,
        "KL_completion_mask": step["kl_mask"],
        "label": desirable,
        "ref_logps": step["reference"],
        "ref_KL_logps": step["mismatched_reference"],
    }

    def model(input_ids: Tensor, **_: Any) -> SimpleNamespace:
        return fused_outputs(step["mismatched"] if input_ids is kl_ids else step["per_token"])

    return trainer._compute_loss(model, inputs, False)


@pytest.mark.parametrize("shift", [-2.0, 2.0], ids=["clamped at 0", "above 0"])
def test_kto(shift: float) -> None:
    step = kto_step(PAIRS, shift)
    desirable = torch.tensor([True, False, True, True, False, True])
    theirs = trl_kto_loss(step, desirable, desirable_weight=1.5, undesirable_weight=0.7)
    kl = (step["mismatched"].sum(dim=1) - step["mismatched_reference"]).mean()
    assert kl.item() == pytest.approx(shift)
    response = responses(step["per_token"], step["mask"], step["reference"])
    batch = FeedbackLogps(response, desirable.double(), torch.ones(PAIRS, dtype=torch.float64), kl)
    ours = step_loss(KTO(beta=0.3, desirable_weight=1.5, undesirable_weight=0.7), batch)
    assert_same(ours, theirs, step["per_token"])


def test_unlearning_s_kto_is_the_log_form_of_an_undesirable_answer_s() -> None:
    # with z = beta * KL, KL > 0: theirs is 1 - sigmoid(v), ours 1 - (2 / beta) log sigmoid(v)
    step, objective = kto_step(1, shift=2.0), KTOIDK(beta=0.3, beta_on_kl=True)
    undesirable = trl_kto_loss(step, torch.tensor([False]), desirable_weight=1.0, undesirable_weight=1.0)
    theirs = 1 - 2 / 0.3 * torch.log1p(-undesirable)
    kl = (step["mismatched"].sum(dim=1) - step["mismatched_reference"]).mean()
    scores = {"forget": responses(step["per_token"], step["mask"], step["reference"])}
    ours = step_loss(objective, objective.batch(scores, StepInputs(torch.ones(1, dtype=torch.float64), step_kl=kl)))
    assert_same(ours, theirs, step["per_token"])


def labels(generator: torch.Generator) -> Tensor:
    """[PAIRS, WIDTH] token ids with the padding marked -100, lengths 1 to WIDTH."""
    ids = torch.randint(0, VOCABULARY, (PAIRS, WIDTH), generator=generator)
    length = torch.randint(1, WIDTH + 1, (PAIRS, 1), generator=generator)
    length[0] = WIDTH
    return ids.masked_fill(torch.arange(WIDTH) >= length, -100)


@pytest.mark.parametrize(
    ("objective", "options"),
    [
        (SimPO(beta=2.0, gamma_ratio=0.3), {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 0.6, "cpo_alpha": 0.0}),
        (CPO(beta=0.3, a_cpo=0.8), {"loss_type": "sigmoid", "beta": 0.3, "cpo_alpha": 0.8}),
        (CPO(beta=0.3, a_cpo=0.0), {"loss_type": "sigmoid", "beta": 0.3, "cpo_alpha": 0.0}),
        (ORPO(lam=0.4, nll_reduction="token_mean"), {"beta": 0.4}),
    ],
    ids=["simpo", "cpo", "cpo without nll", "orpo"],
)
def test_reference_free_losses(objective: Objective, options: dict[str, Any]) -> None:
    """On logits of an encoder-decoder model, where TRL's ORPO counts no prompt tokens either."""
    if isinstance(objective, ORPO):
        from trl.experimental.orpo import ORPOTrainer as Trainer
    else:
        from trl.experimental.cpo import CPOTrainer as Trainer

    generator = torch.Generator().manual_seed(2)
    chosen, rejected = labels(generator), labels(generator)
    logits = 2 * torch.randn(2 * PAIRS, WIDTH, VOCABULARY, generator=generator)
    logits.requires_grad_()
    trainer = trainer_stub(
        Trainer,
        **{
            "alpha": 0.0,
            "is_encoder_decoder": True,
            "pad_token_id": 0,
            "padding_value": 0,
            "decoder_start_token_id": 0,
            **options,
        },
    )
    prompt = torch.ones(PAIRS, 2, dtype=torch.long)
    inputs = {
        "chosen_labels": chosen,
        "rejected_labels": rejected,
        "prompt_input_ids": prompt,
        "prompt_attention_mask": prompt,
    }
    theirs, _ = trainer.get_batch_loss_metrics(lambda *_, **__: SimpleNamespace(logits=logits), inputs)

    both = torch.cat([chosen, rejected])
    scored = both != -100
    token_logps = logits.log_softmax(dim=-1).gather(2, both.clamp(min=0)[..., None])[..., 0] * scored
    sums, counts = token_logps.sum(dim=1), scored.sum(dim=1).float()
    batch = PairLogps(
        ResponseLogps(sums[:PAIRS], counts[:PAIRS]), ResponseLogps(sums[PAIRS:], counts[PAIRS:]), torch.ones(PAIRS)
    )
    assert_same(step_loss(objective, batch), theirs, logits, tolerance=2e-6)


def word_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    text = "the a cat dog sat ran on mat far well badly and then why how . ?"
    words = ["[pad]", "[eos]", "[unk]", *text.split()]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[unk]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[pad]", eos_token="[eos]", unk_token="[unk]", model_max_length=64
    )


def tiny_llama(seed: int, vocabulary: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        initializer_range=0.4,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=1,
    )
    return LlamaForCausalLM(config)


def response_logp(model: Any, prompt: list[int], response: list[int]) -> float:
    """log p(response | prompt) by one unpadded forward and a plain log-softmax."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + response])).logits[0].double()
    predictions = logits.log_softmax(dim=-1)[len(prompt) - 1 : -1]
    return predictions.gather(1, torch.tensor(response)[:, None]).sum().item()


def scored_side(policy: Any, reference: Any, rows: Any, role: str) -> ResponseLogps:
    prompts, texts = [row["prompt_ids"] for row in rows], [row[f"{role}_ids"] for row in rows]
    policy_logps, reference_logps = (
        torch.tensor([response_logp(model, x, y) for x, y in zip(prompts, texts, strict=True)], dtype=torch.float64)
        for model in (policy, reference)
    )
    return ResponseLogps(policy_logps, torch.tensor([len(y) for y in texts], dtype=torch.float64), reference_logps)


@pytest.mark.parametrize(("loss_type", "objective", "options"), PREFERENCE_LOSSES, ids=LOSS_TYPES)
def test_loss_logged_by_a_real_training_step(
    tmp_path: Path, loss_type: str, objective: Objective, options: dict[str, float]
) -> None:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    tokenizer = word_tokenizer()
    rows = [
        {"prompt": "why the cat", "chosen": " sat on the mat .", "rejected": " ran ."},
        {"prompt": "how", "chosen": " well", "rejected": " badly and then the dog ran far ."},
        {"prompt": "a dog and a cat then", "chosen": " ran far", "rejected": " sat well"},
        {"prompt": "the mat ?", "chosen": " a mat on a mat on a mat .", "rejected": " the ?"},
    ]
    policy, reference = tiny_llama(0, len(tokenizer)), tiny_llama(1, len(tokenizer))
    arguments = DPOConfig(
        output_dir=str(tmp_path),
        loss_type=[loss_type],
        **{"beta": 0.3, **options},
        per_device_train_batch_size=len(rows),
        max_steps=1,
        logging_steps=1,
        logging_first_step=True,
        report_to="none",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
        save_strategy="no",
        dataloader_pin_memory=False,
    )
    trainer = DPOTrainer(
        policy, reference, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
    )
    tokenized = list(trainer.train_dataset)
    sides = [scored_side(policy.eval(), reference.eval(), tokenized, role) for role in ("chosen", "rejected")]
    batch = PairLogps(*sides, weight=torch.ones(len(rows), dtype=torch.float64))
    assert (sides[0].tokens != sides[1].tokens).any()

    trainer.train()
    logged = next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)
    assert step_loss(objective, batch).item() == pytest.approx(logged, abs=1e-4)
