"""Which pairs a round of DNO-Prct trains on: win rates or scores of one prompt's answers in, (chosen, rejected) out.

The practical form of direct Nash optimisation (Rosset et al. 2024, arXiv 2404.03715, algorithm 2): the policy's own
answers and a teacher's are judged side by side, and only pairs that are far apart and whose better answer is good become
training data. Pure functions of numbers; nothing here samples from a model or asks a judge.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

from paperworks.core.errors import OptionError, RewardError
from paperworks.core.options import check_ranges, option

Writer = Literal["student", "teacher"]
Row = TypeVar("Row")

COMPLEMENTARY = 1e-6  # how far P(a > b) + P(b > a) may be from 1
REPLAY = (0.30, 0.15)  # of the round's new pairs, from the last round and the one before; then half as many each


class AnswerPair(NamedTuple):
    """Two answers of one prompt by their places in its list, and who wrote them."""

    chosen: int
    rejected: int
    kind: str  # "teacher > student", "student > teacher" or "student > student"


@dataclass(frozen=True)
class PairRule:
    """Which of a prompt's answers may stand as chosen and as rejected. Raises OptionError for a negative margin.

    positives="teacher" is DNO-Restrictive: only the teacher's answers are chosen ones.
    """

    positive_threshold: float = option(5.0, "lowest score of a chosen answer, on the judge's scale of 1 to 6")
    margin: float = option(2.0, "how much better the teacher's answer must score than one it is chosen over", low=0)
    student_margin: float = option(1.0, "the same where the better answer is the policy's own", low=0)
    positives: Literal["any", "teacher"] = option("any", "whose answers may be chosen")

    def __post_init__(self) -> None:
        check_ranges(self, what="pair rule")
        if self.positives not in ("any", "teacher"):
            raise OptionError(f"option positives={self.positives}: expected any or teacher")

    def pairs(
        self, scores: Sequence[float], writers: Sequence[Writer], degenerate: Sequence[bool] | None = None
    ) -> list[AnswerPair]:
        """All pairs of a prompt's answers that the rule admits, in order of (chosen, rejected).

        First the threshold on the chosen answer, then the margin; a prompt none of whose answers reaches the threshold
        gives no pairs. `degenerate` answers (heavy repetition) are never chosen, and rejected whatever the judge gave
        them. Two of the teacher's answers make no pair. Raises RewardError for another number of scores or one that is
        not finite.
        """
        if len(scores) != len(writers) or (degenerate is not None and len(degenerate) != len(scores)):
            raise RewardError(f"pair rule: {len(scores)} scores for {len(writers)} answers; the judge gives one each")
        if bad := [score for score in scores if not math.isfinite(score)]:
            raise RewardError(f"pair rule: the judge gave an answer the score {bad[0]}; expected a finite number")
        is_degenerate = degenerate or [False] * len(scores)
        found = []
        for chosen, score in enumerate(scores):
            margin = self.margin if writers[chosen] == "teacher" else self.student_margin
            if is_degenerate[chosen] or score < self.positive_threshold:
                continue
            if self.positives == "teacher" and writers[chosen] != "teacher":
                continue
            for rejected, other in enumerate(scores):
                far_apart = is_degenerate[rejected] or (score > other and score - other >= margin)
                if rejected != chosen and far_apart and {writers[chosen], writers[rejected]} != {"teacher"}:
                    kind = f"{writers[chosen]} > {writers[rejected]}"
                    found.append(AnswerPair(chosen, rejected, kind))
        return found


def win_rates(matrix: Sequence[Sequence[float]]) -> list[float]:
    """Each answer's mean probability of beating the other candidates, from P(row beats column); ties count 0.5.

    The diagonal is left out: K + 1 candidates are averaged over K others. Raises RewardError where the matrix is not
    square, has an entry outside [0, 1], or P(a > b) + P(b > a) is not 1.
    """
    size = len(matrix)
    if size < 2 or any(len(row) != size for row in matrix):
        raise RewardError(f"win matrix: expected a square of 2 or more answers, found rows of {[*map(len, matrix)]}")
    for row in range(size):
        for column in range(row):
            ahead, behind = matrix[row][column], matrix[column][row]
            if not (0 <= ahead <= 1 and 0 <= behind <= 1):
                raise RewardError(
                    f"win matrix: {ahead:g} and {behind:g} of answers {row} and {column} are not in [0, 1]"
                )
            if abs(ahead + behind - 1) > COMPLEMENTARY:
                raise RewardError(
                    f"win matrix: P({row} > {column}) + P({column} > {row}) = {ahead + behind:g}, expected 1; average the "
                    "judge over both orders"
                )
    return [(sum(row[:place]) + sum(row[place + 1 :])) / (size - 1) for place, row in enumerate(matrix)]


def provenance(pairs: Sequence[AnswerPair]) -> dict[str, int]:
    """How many pairs there are of each kind, the commonest first."""
    return dict(Counter(pair.kind for pair in pairs).most_common())


def score_histogram(scores: Sequence[float]) -> str:
    """`3: 12, 4: 7`: how often each score was given, rounded to whole numbers; for a round that found no pairs."""
    counts: Mapping[int, int] = Counter(round(score) for score in scores)
    return ", ".join(f"{score}: {counts[score]}" for score in sorted(counts))


def replayed(
    earlier: Sequence[Sequence[Row]], new: int, *, shares: Sequence[float] = REPLAY, seed: int = 0
) -> list[Row]:
    """Old pairs to train on beside `new` new ones: drawn without replacement from each earlier round, the last one first.

    `shares[0]` of the number of new pairs comes from the round before, `shares[1]` from the one before that, and so on;
    beyond the shares given each is half the one before it. What the share is of, the paper leaves open: here it is the
    round's new pairs. A round that has fewer gives all it has. Raises OptionError for a share outside [0, 1].
    """
    if bad := [share for share in shares if not 0 <= share <= 1]:
        raise OptionError(f"option replay={bad[0]:g}: expected shares in [0, 1]")
    drawn: list[Row] = []
    share = 0.0
    for age, rows in enumerate(reversed(earlier)):
        share = shares[age] if age < len(shares) else share / 2
        count = min(len(rows), int(share * new + 0.5))
        drawn += random.Random(f"{seed}-{len(earlier) - age}").sample(list(rows), count)
    return drawn


def is_repetitive(text: str, *, words: int = 4, limit: float = 0.5) -> bool:
    """Whether more than `limit` of the text's runs of `words` words are repeats of earlier ones.

    The paper makes answers with heavily repeated n-grams automatic negatives without saying how heavily; length and
    limit are ours.
    """
    split = text.split()
    runs = [tuple(split[start : start + words]) for start in range(len(split) - words + 1)]
    return len(runs) > 1 and 1 - len(set(runs)) / len(runs) > limit
