"""TOFU's whole evaluation of one model, batched: losses of all answers, greedy answers, and the outcome from them.

All answers of a question share its prompt in one tree, questions of all sets are scored together by length, and all
greedy answers are decoded together. Knows nothing of files or of the command line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from paperworks.core.errors import DataError, ModelError
from paperworks.core.options import check_ranges, option
from paperworks.language.data import Dataset, plain_text
from paperworks.language.data.schemas import QuestionAnswer, Text
from paperworks.language.items import score
from paperworks.language.logprobs import Tree
from paperworks.language.policy import Policy
from paperworks.language.sampling import check_room, sample
from paperworks.language.unlearning.logs import UnlearningLog, retain_only_set
from paperworks.language.unlearning.measured_sets import (
    LABELS,
    SET_NAMES,
    MeasuredItem,
    MeasuredSet,
    SetName,
    question_key,
)
from paperworks.language.unlearning.measures import Averaging
from paperworks.language.unlearning.outcome import UnlearningReport
from paperworks.language.unlearning.rouge import rouge_l_recall

OnProgress = Callable[[float], None]  # the share that is done, in [0, 1]
_TREES_AT_ONCE = 64
_SHARE_OF_SCORING = 0.3  # of the time, roughly: answers are decoded a token at a time


@dataclass(frozen=True)
class UnlearningOptions:
    """How an evaluation is done; the defaults are TOFU's."""

    limit: int = option(300, "most questions of each set: the first ones", low=1)
    max_new_tokens: int = option(200, "most tokens of a generated answer", low=1)
    rouge: bool = option(True, "generate answers for ROUGE-L; without, utility is over fewer numbers, and much faster")
    averaging: Averaging = option(
        "geometric",
        "mean of the wrong answers' probabilities in the truth ratio: geometric as in the released evaluation, or "
        "arithmetic as in the paper's formula (from memory)",
    )
    batch_rows: int = option(64, "answers decoded at once", low=1)

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class UnlearningSets:
    """What is evaluated: questions to forget, and as many of the other three sets as there are."""

    forget: Dataset[QuestionAnswer]
    retain: Dataset[QuestionAnswer] | None = None
    real_authors: Dataset[QuestionAnswer] | None = None
    world_facts: Dataset[QuestionAnswer] | None = None

    def named(self) -> dict[SetName, Dataset[QuestionAnswer]]:
        """The sets that are there, by name, in the protocol's order."""
        given = ((name, getattr(self, name)) for name in SET_NAMES)
        return {name: rows for name, rows in given if rows is not None}

    def check(self) -> None:
        """Raises DataError for a set without rows, or a question that the protocol cannot use (see `check_row`)."""
        for name, rows in self.named().items():
            if not len(rows):
                raise DataError(
                    f"the {LABELS[name]} is empty; expected questions with answers", file=rows.report.source or None
                )
            for row in rows:
                check_row(row)

    def retain_only(self, log: UnlearningLog, options: UnlearningOptions) -> MeasuredSet:
        """The log's items for the questions of the forget set. Raises RunError for a log of other questions."""
        keys = [row_key(row) for row in self.forget.rows[: options.limit]]
        return retain_only_set(log, keys, options.averaging)


def check_row(row: QuestionAnswer) -> None:
    """Raises DataError (file:line) for a question without wrong answers, or with the true answer among them."""
    place: dict[str, Any] = {
        "file": row.where.file or None,
        "line": row.where.line or None,
        "field": "perturbed_answer",
    }
    if not row.perturbed_answer:
        raise DataError(
            "missing; expected a list of wrong answers of the same form, which the truth ratio compares the true one with",
            **place,
        )
    true = {plain_text(text).strip() for text in (row.answer, row.paraphrased_answer) if text}
    for wrong in row.perturbed_answer:
        if not wrong.strip():
            raise DataError("a perturbed answer is empty; expected wrong answers", **place)
        if wrong.strip() in true:
            raise DataError(
                f"the perturbed answer {_short(wrong)} equals the true one; expected wrong answers only", **place
            )


def row_key(row: QuestionAnswer) -> str:
    """The key of a question in logs."""
    return question_key(row.prompt, row.answer, row.paraphrased_answer, row.perturbed_answer)


def evaluate_unlearning(
    policy: Policy,
    sets: UnlearningSets,
    options: UnlearningOptions = UnlearningOptions(),
    *,
    retain_log: UnlearningLog | None = None,
    on_progress: OnProgress | None = None,
) -> UnlearningReport:
    """The protocol on one model: every set's probability, ROUGE-L and truth ratio, model utility and, with the log of a
    retain-only model, forget quality (arXiv 2401.06121, as used in arXiv 2404.05868).

    Losses are a token, the end token included. A question without a paraphrase is its own. Raises DataError (see
    `UnlearningSets.check`; also a question that does not fit the model's context), RunError for a log of another forget
    set, ModelError for a model whose log-probabilities are not numbers.
    """
    sets.check()
    retain_only = None if retain_log is None else sets.retain_only(retain_log, options)
    shown = on_progress or (lambda share: None)
    rows = [(name, row) for name, data in sets.named().items() for row in data.rows[: options.limit]]
    trees = _trees(policy, [row for _, row in rows])
    scoring = _SHARE_OF_SCORING if options.rouge else 1.0
    losses = _losses(policy, trees, lambda share: shown(scoring * share))
    answers: Sequence[str | None] = [None] * len(rows)
    if options.rouge:
        prompts = [row.prompt for _, row in rows]
        answers = greedy_answers(policy, prompts, options, lambda share: shown(scoring + (1 - scoring) * share))
    measured: dict[SetName, list[MeasuredItem]] = {name: [] for name in sets.named()}
    for (name, row), tree, of_row, answer in zip(rows, trees, losses, answers, strict=True):
        measured[name].append(_item(row, tree, of_row, answer))
    found = {name: MeasuredSet(name, tuple(items), options.averaging) for name, items in measured.items()}
    return UnlearningReport(policy.name, found, retain_only, "" if retain_log is None else retain_log.model)


def greedy_answers(
    policy: Policy, prompts: Sequence[Text], options: UnlearningOptions, on_progress: OnProgress | None = None
) -> list[str]:
    """The model's likeliest continuation of every prompt, token by token."""
    done: list[int] = []

    def on_prompt(index: int, _: Any) -> None:
        done.append(index)
        if on_progress is not None:
            on_progress(len(done) / len(prompts))

    drawn = sample(
        policy,
        prompts,
        max_new_tokens=options.max_new_tokens,
        temperature=0.0,
        batch_rows=options.batch_rows,
        on_prompt=on_prompt,
    )
    return [samples.texts[0] for samples in drawn]


def _trees(policy: Policy, rows: Sequence[QuestionAnswer]) -> list[Tree]:
    """A tree a question: its answer, its paraphrase where there is one, its wrong answers."""
    texts = [
        [row.answer, *([row.paraphrased_answer] if row.paraphrased_answer else []), *row.perturbed_answer]
        for row in rows
    ]
    encoded = iter(policy.encode_responses([text for of_row in texts for text in of_row]))
    trees = []
    for row, of_row in zip(rows, texts, strict=True):
        tree = Tree(policy.encode_prompt(row.prompt), [next(encoded) for _ in of_row])
        _check_length(policy, tree, row)
        trees.append(tree)
    return trees


def _check_length(policy: Policy, tree: Tree, row: QuestionAnswer) -> None:
    where = str(row.where) if row.where.file else "a question"
    check_room(policy, tree.prompt, f"{where}: the prompt")
    longest = max(map(len, tree.responses))
    whole = longest if policy.is_encoder_decoder else len(tree.prompt) + longest
    if whole > policy.context_length:
        raise DataError(
            f"{where}: question and longest answer have {whole} tokens; the context of the model is "
            f"{policy.context_length}: shorten them"
        )


def _losses(policy: Policy, trees: Sequence[Tree], on_progress: OnProgress) -> list[list[float]]:
    """Nats a token of every answer, question by question. Raises ModelError where one is not a finite number."""
    by_size = sorted(range(len(trees)), key=lambda i: len(trees[i].prompt) + sum(map(len, trees[i].responses)))
    losses: list[list[float]] = [[] for _ in trees]
    for start in range(0, len(trees), _TREES_AT_ONCE):
        part = by_size[start : start + _TREES_AT_ONCE]
        sums, counts = score(policy, [trees[i] for i in part])
        means = -sums.double() / counts.double()
        for i, of_question in zip(part, means.split([len(trees[i].responses) for i in part]), strict=True):
            losses[i] = of_question.tolist()
        on_progress(min(1.0, (start + _TREES_AT_ONCE) / len(trees)))
    answers = [loss for of_question in losses for loss in of_question]
    not_finite = sum(not math.isfinite(loss) for loss in answers)
    if not_finite:
        raise ModelError(
            f"{policy.name}: {not_finite} of {len(answers)} answers have no finite log-probability: the weights are "
            "damaged or training diverged; use an earlier checkpoint"
        )
    return losses


def _item(row: QuestionAnswer, tree: Tree, losses: Sequence[float], generated: str | None) -> MeasuredItem:
    wrong = len(row.perturbed_answer)
    answer = row.answer if isinstance(row.answer, str) else "\n".join(turn["content"] for turn in row.answer)
    return MeasuredItem(
        nll=losses[0],
        paraphrased_nll=losses[-wrong - 1],  # the answer's own where there is no paraphrase
        perturbed_nll=tuple(losses[-wrong:]),
        tokens=len(tree.responses[0]),
        rouge=None if generated is None else rouge_l_recall(answer, generated),
        key=row_key(row),
        where=str(row.where) if row.where.file else "",
        question=plain_text(row.prompt),
        answer=answer,
        generated=generated,
    )


def _short(text: str, limit: int = 60) -> str:
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")
