"""Answers of mixed quality with rewards that anyone can compute: three writers, three attributes.

A prompt asks for a review that speaks of one to three aspects of a film or a hotel ("Review the music and the cast of the
film:"). A good writer does so; an average one strays, repeats a clause or stops early; noise is babble, or a review of
something else. Each answer has three rewards in [0, 1], functions of prompt and answer alone: on topic (F1 of the aspects
asked for and spoken of), no repetition (share of word pairs that are not repeats), length in range. Everything follows
from the seed.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, get_args

from paperworks.core.errors import OptionError
from paperworks.core.seeding import derive_seed
from paperworks.language.data.schemas import Preference, Scored
from paperworks.language.rewards.reward import CheckedReward, Reward, sum_of
from paperworks.language.testbeds import word_banks as words

Writer = Literal["good", "average", "noise"]
SHARES: Mapping[str, tuple[float, float, float]] = {
    "mixed": (0.3, 0.3, 0.4),
    "clean": (0.4, 0.4, 0.2),
    "bad": (0.15, 0.15, 0.7),
}
"""Shares of the good, average and noise writers, by the name of a condition."""

MAX_REWARD = 3.0
SHORTEST, LONGEST = 8, 18  # words of an answer whose length is in range
_NOUNS = {"film": words.FILM_NOUNS, "hotel": words.HOTEL_NOUNS}
_ASPECTS = (*words.FILM_NOUNS, *words.HOTEL_NOUNS)


class Answer(NamedTuple):
    """An answer and who wrote it."""

    prompt: str
    response: str
    writer: Writer


def prompts(seed: int) -> list[str]:
    """All 350 prompts, one a set of one to three aspects of a film or hotel, shuffled by the seed."""
    chance = random.Random(derive_seed("scored prompts", seed))
    found = []
    for thing, nouns in _NOUNS.items():
        for size in (1, 2, 3):
            for chosen in itertools.combinations(nouns, size):
                found.append(_prompt(thing, chance.sample(chosen, size)))
    chance.shuffle(found)
    return found


def write_answers(
    of_prompts: Sequence[str], seed: int, *, shares: tuple[float, float, float] = SHARES["mixed"], each: int = 4
) -> list[Answer]:
    """`each` answers to every prompt, by writers drawn with `shares` (good, average, noise).

    Raises OptionError for shares that are no probabilities.
    """
    if any(share < 0 for share in shares) or abs(sum(shares) - 1) > 1e-9:
        raise OptionError(f"option shares={shares}: expected three numbers ≥ 0 that sum to 1")
    chance = random.Random(derive_seed("scored answers", seed))
    answers = []
    for prompt in of_prompts:
        for _ in range(each):
            writer: Writer = chance.choices(get_args(Writer), shares)[0]
            answers.append(Answer(prompt, _WRITERS[writer](prompt, chance), writer))
    return answers


def scored(answers: Sequence[Answer]) -> list[Scored]:
    """The answers with their three rewards by name."""
    columns = {
        name: reward([answer.prompt for answer in answers], [answer.response for answer in answers])
        for name, reward in REWARDS.items()
    }
    return [
        Scored(answer.prompt, answer.response, rewards={name: column[index] for name, column in columns.items()})
        for index, answer in enumerate(answers)
    ]


def better_worse(rows: Sequence[Scored]) -> list[Preference]:
    """Preference rows for pair losses: the best of a prompt's answers with the worst, the next with the next.

    A pair whose rewards are the same teaches nothing and is left out.
    """
    by_prompt: dict[object, list[Scored]] = {}
    for row in rows:
        by_prompt.setdefault(row.prompt, []).append(row)
    pairs = []
    for of_prompt in by_prompt.values():
        ranked = sorted(of_prompt, key=_total, reverse=True)
        for better, worse in zip(ranked[: len(ranked) // 2], reversed(ranked), strict=False):
            if _total(better) > _total(worse) and better.response != worse.response:
                pairs.append(Preference(better.prompt, better.response, worse.response))
    return pairs


# ------------------------------------------------------------------------------------------------------------- rewards


def on_topic(of_prompts: list[str], responses: list[str]) -> list[float]:
    """F1 of the aspects that the prompt asks for and those that the response speaks of; 0 where it speaks of none."""
    scores = []
    for prompt, response in zip(of_prompts, responses, strict=True):
        asked, said = set(aspects(prompt)), set(aspects(response))
        scores.append(2 * len(asked & said) / (len(asked) + len(said)) if asked and said else 0.0)
    return scores


def no_repetition(of_prompts: list[str], responses: list[str]) -> list[float]:
    """The share of a response's pairs of neighbouring words that have not come before in it; 0 below two words."""
    scores = []
    for response in responses:
        pairs = list(itertools.pairwise(_words(response)))
        scores.append(len(set(pairs)) / len(pairs) if pairs else 0.0)
    return scores


def length_in_range(of_prompts: list[str], responses: list[str]) -> list[float]:
    """1 for 8 to 18 words, falling to 0 at none and at 36."""
    scores = []
    for response in responses:
        count = len(_words(response))
        scores.append(max(0.0, min(1.0, count / SHORTEST, 2 - count / LONGEST)))
    return scores


REWARDS: Mapping[str, Reward] = {
    "on_topic": CheckedReward("on_topic", on_topic),
    "no_repetition": CheckedReward("no_repetition", no_repetition),
    "length_in_range": CheckedReward("length_in_range", length_in_range),
}
TOTAL: Reward = sum_of(list(REWARDS.values()))
"""The sum of the three, in [0, 3]."""


def distinct(responses: Sequence[str], n: int = 2) -> float:
    """distinct-n (Li et al. 2016, arXiv 1510.03055): different n-grams of words over all n-grams, of all responses."""
    found = [gram for text in responses for gram in zip(*(_words(text)[start:] for start in range(n)))]
    return len(set(found)) / len(found) if found else 0.0


def aspects(text: str) -> list[str]:
    """The aspects of a film or hotel that a text names, in order."""
    return [word for word in _words(text) if word in _ASPECTS]


# ------------------------------------------------------------------------------------------------------------- writers


def _good(prompt: str, chance: random.Random) -> str:
    asked = aspects(prompt)
    clauses = [_clause(noun, chance) for noun in chance.sample(asked, len(asked))]
    if len(clauses) == 1:
        clauses.append(f"we {chance.choice((*words.GOOD_VERBS, *words.BAD_VERBS))} it from the start")
    return _joined(clauses, chance)


def _average(prompt: str, chance: random.Random) -> str:
    asked = aspects(prompt)
    first = _clause(chance.choice(asked), chance)
    fault = chance.choice(("strays", "repeats", "stops"))
    if fault == "strays":
        return _joined([first, _clause(_other(asked, chance), chance), _clause(_other(asked, chance), chance)], chance)
    return _joined([first] * chance.randint(2, 3) if fault == "repeats" else [first], chance)


def _noise(prompt: str, chance: random.Random) -> str:
    if chance.random() < 0.3:
        away = [_other(aspects(prompt), chance) for _ in range(chance.randint(1, 3))]
        return _joined([_clause(noun, chance) for noun in away], chance)
    bank = (*_ASPECTS, *words.NEUTRAL, *words.BAD, "the", "was", "and")
    few = chance.sample(bank, chance.randint(2, 6))
    return " " + " ".join(chance.choice(few) for _ in range(chance.choice((2, 3, 24, 28)))) + "."


_WRITERS: Mapping[Writer, Callable[[str, random.Random], str]] = {"good": _good, "average": _average, "noise": _noise}


def _prompt(thing: str, nouns: Sequence[str]) -> str:
    named = [f"the {noun}" for noun in nouns]
    listed = named[0] if len(named) == 1 else ", ".join(named[:-1]) + " and " + named[-1]
    return f"Review {listed} of the {thing}:"


def _clause(noun: str, chance: random.Random) -> str:
    degree = chance.choice(words.DEGREES)
    adjective = chance.choice((*words.GOOD, *words.BAD, *words.NEUTRAL))
    return f"the {noun} was {f'{degree} ' if degree else ''}{adjective}"


def _joined(clauses: Sequence[str], chance: random.Random) -> str:
    text = clauses[0]
    for clause in clauses[1:]:
        text += chance.choice((", ", " and ", " but ", ", while ")) + clause
    return f" {text[0].upper()}{text[1:]}."


def _other(asked: Sequence[str], chance: random.Random) -> str:
    return chance.choice([noun for noun in _ASPECTS if noun not in asked])


def _total(row: Scored) -> float:
    return sum(row.rewards.values())


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())
