"""A step of unlearning with all its terms against the plain sum of its parts: same rows, weights, optimiser; in turn.

The step is NPO on 8 answers to forget, cross-entropy on 8 to keep, and KL from the reference on these. Ours puts all rows
through the model once and has the reference's view from before training. The parts are five padded forward passes of
transformers, as the code released with NPO makes them: the model on the answers to forget, the reference on them, the
model on the answers to keep, and both on these again for the KL. What computing the reference beforehand costs is
printed beside, and counted in the last two ratios. Losses must agree to one part in 10,000, else there is no ratio.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from paperworks.language.data import Dataset
from paperworks.language.data.schemas import Forget, Retain
from paperworks.language.items import Item
from paperworks.language.objectives.npo import NPO
from paperworks.language.policy import LoraOptions, Policy
from paperworks.language.training import TrainOptions, _Loop

ROWS = 8  # to forget, and as many to keep
BETA, RATE, IGNORED, EPOCHS = 0.1, 1e-5, -100, 10
WORDS = (
    "the",
    "author",
    "of",
    "was",
    "born",
    "in",
    "city",
    "a",
    "book",
    "about",
    "his",
    "mother",
    "who",
    "wrote",
    "first",
)


def texts(steps: int) -> tuple[list[Forget], list[Retain]]:
    """Rows as long as TOFU's: prompts of about 25 tokens, answers of about 45, 20 to 75."""
    draw = random.Random(0)

    def text(low: int, high: int) -> str:
        return "".join(" " + draw.choice(WORDS) for _ in range(draw.randint(low, high)))

    def pair() -> tuple[str, str]:
        return text(18, 32).strip(), text(20, 70)

    return (
        [Forget(prompt=prompt, forget=answer) for prompt, answer in (pair() for _ in range(ROWS * steps))],
        [Retain(prompt=prompt, retain=answer) for prompt, answer in (pair() for _ in range(ROWS * steps))],
    )


class Together:
    """paperworks' own loop, step by step."""

    def __init__(self, policy: Policy, forget: list[Forget], retain: list[Retain]) -> None:
        steps = len(forget) // ROWS
        options = TrainOptions(
            steps=steps, batch_size=ROWS, micro_batch=2 * ROWS, learning_rate=RATE, schedule="constant", warmup=0.0
        )
        objective = NPO(beta=BETA, retain_weight=1.0, kl_weight=1.0)
        self.loop = _Loop(
            policy, objective, Dataset((*forget, *retain)), options, None, None, False, None, None, None, False, None
        )

    def items(self, index: int) -> list[Item]:
        return [self.loop.data.items[row] for row in self.loop.plan.rows(index)]

    def step(self, index: int) -> float:
        return self.loop._step(index)["loss"]

    def reference_seconds(self, index: int) -> tuple[float, float]:
        """What the reference's view of a step's rows cost before training: those to forget, those to keep."""
        rows = self.loop.plan.rows(index)
        taken = []
        for role in ("forget", "retain"):
            began = time.perf_counter()
            self.loop._reference(self.loop.data, [row for row in rows if role in self.loop.data.items[row].responses])
            taken.append(time.perf_counter() - began)
        return taken[0], taken[1]


class Parts:
    """Each term by itself: its own forward passes, its own backward pass."""

    def __init__(self, policy: Policy, reference: Policy) -> None:
        self.model: Any = policy.model
        self.reference: Any = reference.model
        self.pad = policy.tokenizer.pad_token_id or 0
        for each in (policy, reference):
            each.base.set_attn_implementation("sdpa")
        self.reference.requires_grad_(False)
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(self.trained, lr=RATE, weight_decay=0.0, fused=True)

    def step(self, items: Sequence[Item]) -> float:
        forget, retain = self._batch(items, "forget"), self._batch(items, "retain")
        self.model.train()
        loss = 0.0
        for term in (self._npo, self._cross_entropy, self._kl):
            part = term(forget if term == self._npo else retain)
            part.backward()
            loss += float(part.detach())
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return loss

    def _npo(self, batch: dict[str, Tensor]) -> Tensor:
        policy = -self._nll(self.model, batch)
        with torch.no_grad():
            reference = -self._nll(self.reference, batch)
        return -(2 / BETA) * functional.logsigmoid(-BETA * (policy - reference)).mean()

    def _cross_entropy(self, batch: dict[str, Tensor]) -> Tensor:
        return self.model(**batch, use_cache=False).loss

    def _kl(self, batch: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            reference = self._answers(self.reference, batch).log_softmax(-1)
        policy = self._answers(self.model, batch).log_softmax(-1)
        return functional.kl_div(policy, reference, reduction="batchmean", log_target=True)

    def _nll(self, model: Any, batch: dict[str, Tensor]) -> Tensor:
        """Negative log-likelihood of each row's answer."""
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
        values = functional.cross_entropy(
            logits[:, :-1].transpose(-1, -2), batch["labels"][:, 1:], ignore_index=IGNORED, reduction="none"
        )
        return values.sum(-1)

    def _answers(self, model: Any, batch: dict[str, Tensor]) -> Tensor:
        """Logits at the answers' tokens."""
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
        return logits[:, :-1][batch["labels"][:, 1:] != IGNORED]

    def _batch(self, items: Sequence[Item], role: str) -> dict[str, Tensor]:
        """Rows of a role, padded at their right, with labels at the tokens of answers."""
        rows = [(list(item.prompt), list(item.responses[role][0])) for item in items if role in item.responses]
        longest = max(len(prompt) + len(answer) for prompt, answer in rows)
        out: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "labels": []}
        for prompt, answer in rows:
            rest = longest - len(prompt) - len(answer)
            out["input_ids"].append([*prompt, *answer, *[self.pad] * rest])
            out["attention_mask"].append([1] * (longest - rest) + [0] * rest)
            out["labels"].append([IGNORED] * len(prompt) + answer + [IGNORED] * rest)
        return {name: torch.tensor(values) for name, values in out.items()}


@dataclass(frozen=True)
class Measured:
    """Seconds of every step."""

    ours: list[float]
    parts: list[float]
    forget_reference: list[float]  # before training, of the step's rows
    retain_reference: list[float]
    loss_gap: float

    def ratio(self, *, forget_share: float = 0.0, retain_share: float = 0.0) -> str:
        """Parts over ours with these shares of the reference's cost counted: median [smallest, largest]."""
        steps = zip(self.ours, self.parts, self.forget_reference, self.retain_reference, strict=True)
        found = [parts / (ours + forget_share * f + retain_share * r) for ours, parts, f, r in steps]
        return f"{statistics.median(found):.2f}x [{min(found):.2f}, {max(found):.2f}]"


def compare(model: str, steps: int, lora: bool) -> Measured:
    """Both take the same steps from the same weights; the first warms them up."""
    adapters = LoraOptions(rank=16, alpha=32) if lora else None
    own, other = (Policy.load(model, lora=adapters, device="cpu", seed=0) for _ in range(2))
    forget, retain = texts(steps + 1)
    together, parts = Together(own, forget, retain), Parts(other, Policy.load(model, device="cpu"))
    references = [together.reference_seconds(index) for index in range(steps + 1)]
    taken: list[tuple[float, float]] = []
    gap = 0.0
    for index in range(steps + 1):
        items = together.items(index)
        began = time.perf_counter()
        our_loss = together.step(index)
        between = time.perf_counter()
        their_loss = parts.step(items)
        taken.append((between - began, time.perf_counter() - between))
        gap = max(gap, abs(our_loss - their_loss))
    if gap > 1e-4 * max(1.0, abs(their_loss)):
        raise SystemExit(f"the two ways disagree: losses differ by {gap:.1e}")
    ours, theirs = zip(*taken[1:], strict=True)
    of_forget, of_retain = zip(*references[1:], strict=True)
    return Measured(list(ours), list(theirs), list(of_forget), list(of_retain), gap)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(
        f"unlearning step (NPO + retain + KL), {args.model}, float32, {ROWS} rows to forget and {ROWS} to keep, "
        f"{args.threads} threads, {args.steps} steps in turn"
    )
    for lora in (False, True):
        found = compare(args.model, args.steps, lora)
        beforehand = [f + r for f, r in zip(found.forget_reference, found.retain_reference, strict=True)]
        print(
            f"  {'LoRA' if lora else 'full'}: ours {statistics.median(found.ours):.2f} s, parts "
            f"{statistics.median(found.parts):.2f} s a step: {found.ratio()}; losses within {found.loss_gap:.1e}\n"
            f"    reference beforehand, {statistics.median(beforehand):.2f} s for the rows of a step; counted, where rows to "
            f"forget are seen {EPOCHS} times and rows to keep once: "
            f"{found.ratio(forget_share=1 / EPOCHS, retain_share=1)}; where every row is seen once: "
            f"{found.ratio(forget_share=1, retain_share=1)}",
            flush=True,
        )


if __name__ == "__main__":
    main()
