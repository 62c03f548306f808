"""DPO steps a second against TRL's DPOTrainer: same model, pairs, precision, optimiser; steps in turn, in one process.

Both begin at the same weights and see the same batches, so their losses must agree; the table says by how much they
differ. Peak memory is of one process each (`--memory ours|trl`), started by this script.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import torch

from paperworks.core.devices import peak_memory_bytes
from paperworks.language.data import Dataset, Preference
from paperworks.language.objectives.dpo import DPO
from paperworks.language.policy import LoraOptions, Policy
from paperworks.language.training import TrainOptions, _Loop

BATCH = 4
BETA = 0.1
RATE = 1e-5
WORDS = [
    "the",
    "of",
    "a",
    "in",
    "to",
    "with",
    "film",
    "story",
    "actor",
    "music",
    "plot",
    "scene",
    "end",
    "good",
    "bad",
    "long",
    "slow",
    "very",
    "quite",
    "rather",
    "real",
    "old",
    "new",
]


def pairs(count: int, seed: int = 0) -> list[Preference]:
    """Pairs with prompts of about 65-100 tokens and answers of 10-80, as plain text."""
    draw = random.Random(seed)

    def text(low: int, high: int) -> str:
        return "".join(" " + draw.choice(WORDS) for _ in range(draw.randint(low, high)))

    return [Preference(prompt=text(65, 100).strip(), chosen=text(10, 79), rejected=text(10, 79)) for _ in range(count)]


class Ours:
    """paperworks' own loop, step by step."""

    def __init__(self, model: str, rows: list[Preference], lora: bool, cached: bool) -> None:
        policy = Policy.load(model, lora=LoraOptions(rank=16, alpha=32) if lora else None, device="cpu")
        steps = len(rows) // BATCH
        options = TrainOptions(
            steps=steps, batch_size=BATCH, micro_batch=BATCH, learning_rate=RATE, schedule="constant", warmup=0.0
        )
        self.policy, self.cached = policy, cached
        self.loop = _Loop(
            policy, DPO(beta=BETA), Dataset(tuple(rows)), options, None, None, False, None, None, None, False, None
        )
        self.loop.plan.rows = lambda step: list(range(step * BATCH, (step + 1) * BATCH))  # type: ignore[method-assign]

    def step(self, index: int) -> float:
        if not self.cached:  # the reference's forward pass as part of the step, as a run of one epoch pays it
            rows = self.loop.plan.rows(index)
            frozen = self.policy.reference() if self.policy.has_adapters else self.policy
            frozen.token_logps([self.loop.data.items[row].tree() for row in rows])
        return self.loop._step(index)["loss"]


class Theirs:
    """TRL's DPOTrainer: its collator, its loss, its optimiser."""

    def __init__(self, model: str, rows: list[Preference], lora: bool, cached: bool) -> None:
        from datasets import Dataset as Table
        from peft import LoraConfig
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from trl import DPOConfig, DPOTrainer

        from paperworks.language.models import resolve

        folder = resolve(model)
        table = Table.from_list([{k: getattr(r, k) for k in ("prompt", "chosen", "rejected")} for r in rows])
        config = DPOConfig(
            output_dir=tempfile.mkdtemp(),
            use_cpu=True,
            beta=BETA,
            learning_rate=RATE,
            max_steps=len(rows) // BATCH,
            per_device_train_batch_size=BATCH,
            lr_scheduler_type="constant",
            report_to=[],
            bf16=False,
            precompute_ref_log_probs=cached,
            gradient_checkpointing=False,
            disable_tqdm=True,
            max_length=None,
        )
        peft = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM") if lora else None
        self.trainer = DPOTrainer(
            AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
            args=config,
            train_dataset=table,
            processing_class=AutoTokenizer.from_pretrained(folder),
            peft_config=peft,
        )
        self.trainer.current_gradient_accumulation_steps = 1  # what train() sets before its first step
        self.trainer.create_optimizer()
        data: Any = self.trainer.train_dataset
        columns = set(self.trainer._signature_columns or data.column_names)
        self.batches = [
            self.trainer.data_collator(
                [{k: v for k, v in data[i].items() if k in columns} for i in range(s * BATCH, (s + 1) * BATCH)]
            )
            for s in range(len(rows) // BATCH)
        ]

    def step(self, index: int) -> float:
        trainer = self.trainer
        trainer.model.train()
        loss = trainer.training_step(trainer.model, dict(self.batches[index]))
        torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), 1.0)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad(set_to_none=True)
        return float(loss)


def compare(model: str, steps: int, lora: bool, cached: bool) -> dict[str, Any]:
    """Seconds a step of both, in turn; the ratio of each pair of steps; the largest difference of losses."""
    rows = pairs(BATCH * (steps + 1))
    ours, theirs = Ours(model, rows, lora, cached), Theirs(model, rows, lora, cached)
    own, other, gaps = [], [], []
    for index in range(steps + 1):
        began = time.perf_counter()
        our_loss = ours.step(index)
        between = time.perf_counter()
        their_loss = theirs.step(index)
        if index:  # the first step warms both up
            own.append(between - began)
            other.append(time.perf_counter() - between)
        gaps.append(abs(our_loss - their_loss))
    return {
        "what": f"{'LoRA' if lora else 'full'}, reference {'cached' if cached else 'in the step'}",
        "ours_s": statistics.median(own),
        "trl_s": statistics.median(other),
        "ratio": statistics.median(t / o for o, t in zip(own, other, strict=True)),
        "low": min(t / o for o, t in zip(own, other, strict=True)),
        "high": max(t / o for o, t in zip(own, other, strict=True)),
        "loss_gap": max(gaps),
    }


def peak_memory(which: str, model: str, lora: bool, cached: bool) -> float:
    """Peak resident bytes of a process that takes two steps of one of the two."""
    command = [sys.executable, __file__, "--memory", which, "--model", model]
    command += ["--lora"] * lora + ["--cached"] * cached
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory", choices=("ours", "trl"))
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--cached", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.memory:
        maker = Ours if args.memory == "ours" else Theirs
        side = maker(args.model, pairs(BATCH * 2), args.lora, args.cached)
        for index in range(2):
            side.step(index)
        print(peak_memory_bytes())
        return
    print(f"DPO training, {args.model}, float32, batch {BATCH}, {args.threads} threads, {args.steps} steps in turn")
    for lora in (False, True):
        for cached in (False, True):
            found = compare(args.model, args.steps, lora, cached)
            memory = [peak_memory(side, args.model, lora, cached) for side in ("ours", "trl")]
            print(
                f"  {found['what']:30} ours {found['ours_s']:.2f} s, TRL {found['trl_s']:.2f} s a step: "
                f"{found['ratio']:.2f}x [{found['low']:.2f}, {found['high']:.2f}]; peak memory "
                f"{memory[0] / 1e9:.2f} / {memory[1] / 1e9:.2f} GB = {memory[0] / memory[1]:.2f}x; "
                f"losses within {found['loss_gap']:.1e}",
                flush=True,
            )


if __name__ == "__main__":
    main()
