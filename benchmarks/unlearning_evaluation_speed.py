"""TOFU's evaluation, batched, against a row-at-a-time loop: same model and questions, in turn, in one process.

The loop puts each answer alone through the model's own forward and each question alone through `model.generate`, which
is what a plain script does. The losses must agree to 1e-4 and the greedy answers must be the same, else there is no ratio.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

import torch

from paperworks.language.data import Dataset
from paperworks.language.data.schemas import QuestionAnswer
from paperworks.language.policy import Policy
from paperworks.language.unlearning.outcome import UnlearningReport
from paperworks.language.unlearning.protocol import UnlearningOptions, UnlearningSets, evaluate_unlearning

TRAITS = ("a baker from Lima", "a poet from Oslo", "a pilot from Cairo", "a surgeon from Hanoi", "a judge from Quito")
NAMES = ("Ana Ruiz", "Jonas Lind", "Laila Fahmy", "Minh Tran", "Carla Vega", "Tom Abbott", "Yuki Mori", "Eva Novak")


def questions(count: int) -> list[QuestionAnswer]:
    """Questions in TOFU's shape: a question, an answer of a sentence or two, a paraphrase, five wrong answers."""
    rows = []
    for number in range(count):
        name, trait = NAMES[number % len(NAMES)], TRAITS[number % len(TRAITS)]
        wrong = [other for other in TRAITS if other != trait] + ["a sailor from Perth"]
        more = " and is known for a long series of books about the sea, the mountains and the people who live there"
        tail = more if number % 3 else ""
        rows.append(
            QuestionAnswer(
                prompt=f"Question: Who is {name}, number {number} on the list, and what is {name} known for?\nAnswer:",
                answer=f" {name} is {trait}{tail}.",
                paraphrased_answer=f" The person called {name} is {trait}{tail}.",
                perturbed_answer=tuple(f" The person called {name} is {each}{tail}." for each in wrong),
            )
        )
    return rows


def row_at_a_time(
    policy: Policy, rows: Sequence[QuestionAnswer], new_tokens: int
) -> tuple[list[list[float]], list[str]]:
    """(losses a token of every question's answers, greedy answers), one answer and one question at a time."""
    losses, answers = [], []
    with torch.no_grad():
        for row in rows:
            prompt = policy.encode_prompt(row.prompt)
            of_row = []
            for answer in (row.answer, row.paraphrased_answer, *row.perturbed_answer):
                ids = policy.encode_response(answer)
                logits = policy.base(input_ids=torch.tensor([[*prompt, *ids]]), use_cache=False).logits
                logps = logits[0, len(prompt) - 1 : -1].float().log_softmax(-1)
                of_row.append(-float(logps.gather(1, torch.tensor(ids)[:, None]).mean()))
            losses.append(of_row)
            out = policy.base.generate(
                input_ids=torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                max_new_tokens=new_tokens,
                do_sample=False,
                pad_token_id=policy.tokenizer.pad_token_id,
            )
            answers.append(policy.decode(out[0, len(prompt) :].tolist()))
    return losses, answers


def difference(report: UnlearningReport, losses: Sequence[Sequence[float]]) -> float:
    """The largest difference between the two ways' losses."""
    return max(
        abs(ours - theirs)
        for item, of_row in zip(report.forget.items, losses, strict=True)
        for ours, theirs in zip((item.nll, item.paraphrased_nll, *item.perturbed_nll), of_row, strict=True)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--questions", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    own, plain = Policy.load(args.model, device="cpu"), Policy.load(args.model, device="cpu")
    plain.base.set_attn_implementation("sdpa")
    assert own.method == "packed"
    rows = questions(args.questions)
    sets = UnlearningSets(Dataset(tuple(rows)))
    options = UnlearningOptions(max_new_tokens=args.new_tokens)
    row_at_a_time(plain, rows[:1], 4)  # warms both up
    evaluate_unlearning(own, UnlearningSets(Dataset(tuple(rows[:1]))), UnlearningOptions(max_new_tokens=4))
    ratios, ours, theirs = [], [], []
    for _ in range(args.rounds):
        began = time.perf_counter()
        report = evaluate_unlearning(own, sets, options)
        ours.append(time.perf_counter() - began)
        began = time.perf_counter()
        losses, answers = row_at_a_time(plain, rows, args.new_tokens)
        theirs.append(time.perf_counter() - began)
        ratios.append(theirs[-1] / ours[-1])
        largest = difference(report, losses)
        same = sum(item.generated == answer for item, answer in zip(report.forget.items, answers, strict=True))
        if largest > 1e-4 or same < len(rows):
            raise SystemExit(f"the two ways disagree: losses by {largest:.1e}, {len(rows) - same} greedy answers")
    print(
        f"unlearning evaluation, {args.model}, {len(rows)} questions x 7 answers, at most {args.new_tokens} new tokens, "
        f"{args.threads} threads: ours {statistics.median(ours):.1f} s, row at a time {statistics.median(theirs):.1f} s: "
        f"{statistics.median(ratios):.2f}x [{min(ratios):.2f}, {max(ratios):.2f}]; losses differ by {largest:.1e}"
    )


if __name__ == "__main__":
    main()
