"""One iteration of GRPO and of RLOO, end to end, against TRL's trainers: same model, prompts, sampling and optimiser.

An iteration samples, scores under the reference, rewards, forms advantages and takes one optimiser step. The two take
turns in one process; each learns from its own answers, so that their lengths differ a little: tokens are shown beside
seconds, and the ratio is of seconds an answer token. A forward pass of learning holds the same number of answers.
Peak memory is of one process each (`--memory ours|trl`), started by this script.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping

import torch

from paperworks.core.devices import peak_memory_bytes
from paperworks.language.data import Dataset
from paperworks.language.data.schemas import Message, PromptRow
from paperworks.language.objectives.policy_gradient import GRPO, RLOO
from paperworks.language.online.loop import OnIteration, train_online
from paperworks.language.online.methods import METHODS
from paperworks.language.online.options import OnlineOptions
from paperworks.language.policy import LoraOptions, Policy
from paperworks.language.rewards.reward import CheckedReward
from paperworks.language.train_options import TrainOptions

PROMPTS, SAMPLES, NEW_TOKENS = 16, 4, 48
ANSWERS_A_PASS = 16
BETA, RATE = 0.04, 1e-6
SUBJECTS = (
    "the sea",
    "a long train journey",
    "winter in the city",
    "learning to cook",
    "an old friend",
    "the night sky",
)
TASKS = (
    "Tell me a story about {}.", "Describe {} in detail.", "Write a short essay about {}.", "What do you think of {}?",
    "Explain to a child what is special about {}.", "Give me some advice about {} and say why.",
)  # fmt: skip


def prompts(count: int) -> list[tuple[Message, ...]]:
    """Chat prompts that ask for more than 48 tokens."""
    asked = [task.format(subject) for task in TASKS for subject in SUBJECTS]
    return [({"role": "user", "content": asked[i % len(asked)]},) for i in range(count)]


def vowels(texts: list[str]) -> list[float]:
    return [sum(letter in "aeiou" for letter in text) / max(1, len(text)) for text in texts]


def ours(method: str, model: str, iterations: int, lora: bool, after: OnIteration | None = None) -> None:
    """paperworks' own run; `after` is called when an iteration is done, with its numbers."""
    policy = Policy.load(model, lora=LoraOptions(rank=16, alpha=32) if lora else None, device="cpu")
    assert policy.method == "packed"
    train_online(
        policy,
        METHODS[method],
        GRPO(beta=BETA) if method == "grpo" else RLOO(),
        Dataset(tuple(PromptRow(prompt=prompt) for prompt in prompts(PROMPTS * iterations))),
        OnlineOptions(
            iterations=iterations,
            prompts_per_iteration=PROMPTS,
            samples=SAMPLES,
            max_new_tokens=NEW_TOKENS,
            kl_coef=BETA if method == "rloo" else OnlineOptions.kl_coef,
        ),
        TrainOptions(learning_rate=RATE, schedule="constant", warmup=0.0, micro_batch=ANSWERS_A_PASS // SAMPLES),
        reward=CheckedReward("vowels", lambda prompts, texts: vowels(texts)),
        on_iteration=after,
    )


class Theirs:
    """TRL's trainer of the same name: its generation, its scoring, its loss, its optimiser."""

    def __init__(self, method: str, model: str, iterations: int, lora: bool) -> None:
        import trl
        from datasets import Dataset as Table
        from peft import LoraConfig
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils.logging import disable_progress_bar

        from paperworks.language.models import resolve

        disable_progress_bar()
        folder = resolve(model)
        config_class, trainer_class = getattr(trl, f"{method.upper()}Config"), getattr(trl, f"{method.upper()}Trainer")
        self.rows = [{"prompt": list(prompt)} for prompt in prompts(PROMPTS * iterations)]
        self.passes = PROMPTS * SAMPLES // ANSWERS_A_PASS
        config = config_class(
            output_dir=tempfile.mkdtemp(),
            use_cpu=True,
            bf16=False,
            report_to=[],
            disable_tqdm=True,
            beta=BETA,
            learning_rate=RATE,
            lr_scheduler_type="constant",
            max_steps=iterations,
            per_device_train_batch_size=ANSWERS_A_PASS,
            gradient_accumulation_steps=self.passes,
            num_generations=SAMPLES,
            max_completion_length=NEW_TOKENS,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
        )
        peft = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM") if lora else None
        self.trainer = trainer_class(
            AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
            reward_funcs=lambda prompts, completions, **kwargs: vowels([each[0]["content"] for each in completions]),
            args=config,
            train_dataset=Table.from_list(self.rows),
            processing_class=AutoTokenizer.from_pretrained(folder, padding_side="left"),
            peft_config=peft,
        )
        self.trainer.current_gradient_accumulation_steps = self.passes  # what train() sets before its first step
        self.trainer.model_wrapped = self.trainer.model
        self.trainer.create_optimizer()

    def iteration(self, index: int) -> int:
        trainer = self.trainer
        trainer.model.train()
        rows = [row for row in self.rows[index * PROMPTS : (index + 1) * PROMPTS] for _ in range(SAMPLES)]
        for number in range(self.passes):
            trainer.accelerator.gradient_state._set_sync_gradients(number + 1 == self.passes)
            trainer.training_step(trainer.model, rows, None)
        torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), 1.0)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad(set_to_none=True)
        return round(float(trainer._metrics["train"]["completions/mean_length"][-1]) * PROMPTS * SAMPLES)


def compare(method: str, model: str, iterations: int, lora: bool) -> str:
    """A line of the table: seconds an iteration of both, in turn."""
    theirs = Theirs(method, model, iterations, lora)
    seconds: list[tuple[float, float]] = []
    ratios: list[float] = []
    sampled = 0

    def their_turn(iteration: int, total: int, values: Mapping[str, float]) -> None:
        nonlocal sampled
        tokens, sampled = values["sampled_tokens"] - sampled, int(values["sampled_tokens"])
        began = time.perf_counter()
        their_tokens = theirs.iteration(iteration - 1)
        seconds.append((values["seconds"], time.perf_counter() - began))
        ratios.append(seconds[-1][1] / their_tokens / (seconds[-1][0] / tokens))
        parts = ", ".join(f"{part} {values[f'seconds_{part}']:.1f}" for part in ("sampling", "scoring", "updating"))
        print(
            f"    ours {seconds[-1][0]:.1f} s ({parts}) for {tokens:.0f} tokens; TRL {seconds[-1][1]:.1f} s for "
            f"{their_tokens} tokens",
            flush=True,
        )

    ours(method, model, iterations, lora, their_turn)
    own, other = (statistics.median(column) for column in zip(*seconds, strict=True))
    return (
        f"  {method}, {'LoRA' if lora else 'full weights'}: ours {own:.1f} s, TRL {other:.1f} s an iteration: "
        f"{statistics.median(ratios):.2f}x [{min(ratios):.2f}, {max(ratios):.2f}]"
    )


def peak_memory(which: str, method: str, model: str, lora: bool) -> float:
    """Peak resident bytes of a process that runs one iteration of one of the two."""
    command = [sys.executable, __file__, "--memory", which, "--model", model, "--methods", method]
    done = subprocess.run(command + ["--lora"] * lora, check=True, capture_output=True, text=True)
    return float(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--methods", nargs="+", default=["grpo", "rloo"], choices=("grpo", "rloo"))
    parser.add_argument("--memory", choices=("ours", "trl"))
    parser.add_argument("--lora", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.memory:
        if args.memory == "ours":
            ours(args.methods[0], args.model, 1, args.lora)
        else:
            Theirs(args.methods[0], args.model, 1, args.lora).iteration(0)
        print(peak_memory_bytes())
        return
    print(
        f"online training, {args.model}, float32, {PROMPTS} prompts x {SAMPLES} answers of at most {NEW_TOKENS} tokens, "
        f"{ANSWERS_A_PASS} answers a pass, {args.threads} threads, {args.iterations} iterations in turn",
        flush=True,
    )
    for method in args.methods:
        print(compare(method, args.model, args.iterations, args.lora), flush=True)
        memory = [peak_memory(side, method, args.model, lora=True) for side in ("ours", "trl")]
        print(
            f"  {method}, LoRA: peak memory {memory[0] / 1e9:.2f} / {memory[1] / 1e9:.2f} GB = {memory[0] / memory[1]:.2f}x",
            flush=True,
        )


if __name__ == "__main__":
    main()
