"""Sampled tokens a second against transformers' `generate`: same model, prompts and options; in turn, in one process."""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from paperworks.language.policy import Policy
from paperworks.language.sampling import sample

QUESTIONS = (
    "What is the capital of France?", "Say hi.", "2+2?", "Name three colours.", "Who wrote Hamlet?", "Write a poem.",
    "Explain gravity briefly.", "Is water wet? Answer yes or no.", "Give a tip for sleeping well.",
    "Translate 'cat' to French.", "What is a noun?", "Tell me a joke.", "How many legs has a spider?", "Name a fruit.",
    "What is 7 times 8?", "Describe rain.",
)  # fmt: skip
SAMPLES, NEW_TOKENS = 4, 64


def ours(policy: Policy, seed: int) -> int:
    prompts = [({"role": "user", "content": question},) for question in QUESTIONS]
    drawn = sample(policy, prompts, n=SAMPLES, max_new_tokens=NEW_TOKENS, seed=seed)
    return sum(len(found.ids) for of_prompt in drawn for found in of_prompt.samples)


def theirs(policy: Policy, seed: int) -> int:
    rows = [policy.encode_prompt(({"role": "user", "content": question},)) for question in QUESTIONS]
    longest, pad = max(map(len, rows)), policy.tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    torch.manual_seed(seed)
    out = policy.base.generate(
        input_ids=ids,
        attention_mask=mask,
        do_sample=True,
        top_k=0,
        num_return_sequences=SAMPLES,
        max_new_tokens=NEW_TOKENS,
        pad_token_id=pad,
    )
    end = policy.tokenizer.eos_token_id
    return sum(row.index(end) + 1 if end in row else len(row) for row in out[:, longest:].tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    own, other = Policy.load(args.model, device="cpu"), Policy.load(args.model, device="cpu")
    other.base.set_attn_implementation("sdpa")
    assert own.method == "packed"
    rates: list[tuple[float, float]] = []
    for round_ in range(args.rounds + 1):
        speeds = []
        for run, policy in ((ours, own), (theirs, other)):
            began = time.perf_counter()
            tokens = run(policy, round_)
            speeds.append(tokens / (time.perf_counter() - began))
        if round_:  # the first round warms both up
            rates.append((speeds[0], speeds[1]))
    ratios = [a / b for a, b in rates]
    print(
        f"sampling, {args.model}, {len(QUESTIONS)} prompts x {SAMPLES}, at most {NEW_TOKENS} new tokens, {args.threads} "
        f"threads: ours {statistics.median(a for a, _ in rates):.0f}, transformers "
        f"{statistics.median(b for _, b in rates):.0f} tokens/s: {statistics.median(ratios):.2f}x "
        f"[{min(ratios):.2f}, {max(ratios):.2f}]"
    )


if __name__ == "__main__":
    main()
