"""Report writing: a prompt lists facts, a response states some of them among filler; how good it is can be counted.

The words that state facts are the response's quality: without them less is covered. Facts are read back by the same
sentence shapes that state them. Everything follows from the seed. Nothing here trains.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import NamedTuple

from paperworks.core.errors import OptionError
from paperworks.core.seeding import derive_seed

VALUES = {
    "age": ("ancient", "medieval", "modern", "recent"),
    "size": ("tiny", "small", "large", "huge"),
    "colour": ("red", "green", "blue", "white"),
    "price": ("free", "cheap", "fair", "costly"),
    "noise": ("silent", "quiet", "loud", "deafening"),
    "shape": ("round", "oval", "angular", "crooked"),
    "crowd": ("empty", "sparse", "busy", "packed"),
    "climate": ("cold", "mild", "warm", "humid"),
    "owner": ("private", "public", "royal", "unknown"),
    "state": ("ruined", "worn", "sound", "perfect"),
}
"""The attributes and the values that each can have."""

FACTS = 6  # a prompt
SHAPES = ("it has {value} {attribute}", "there is {value} {attribute}")
"""How a fact is stated. The value comes first, and says which attribute follows: a tiny model has one word to copy."""

FILLER = ("we hear that", "as for the rest", "so they tell us", "it was said that", "of something else", "in our view")
"""What may stand before a clause. Its words are stop words, but for two."""

NEUTRAL = "something"  # a word of the filler, for versions whose length is matched
WRONG_COST = 0.5  # reward lost by a fact that the prompt does not give
WORD_COST = 0.02  # reward lost by a word
ERROR_SHARE = 0.15  # facts that a mediocre report states with another value

_CLAUSES = re.compile(
    r"\b(?:it has|there is) (?P<value>{v}) (?P<attribute>{a})\b".format(
        a="|".join(VALUES), v="|".join(value for values in VALUES.values() for value in values)
    )
)


class Fact(NamedTuple):
    """What an attribute is."""

    attribute: str
    value: str


class Report(NamedTuple):
    """A prompt that lists facts and a response that states some, which begins with a space and ends with a full stop."""

    prompt: str
    response: str


class Coverage(NamedTuple):
    """How many of the prompt's facts a response states, and how many others."""

    correct: int
    wrong: int


def draw_facts(chance: random.Random) -> tuple[Fact, ...]:
    """Facts for a prompt: attributes all different."""
    return tuple(Fact(attribute, chance.choice(VALUES[attribute])) for attribute in chance.sample(list(VALUES), FACTS))


def prompt_of(facts: Sequence[Fact]) -> str:
    """The prompt that lists these facts: `size large, age modern, …: report`."""
    return f"{', '.join(' '.join(fact) for fact in facts)}: report"


def prompts(n: int, seed: int) -> list[str]:
    """`n` prompts; the first ones are the same whatever n is."""
    chance = random.Random(derive_seed("report prompts", seed))
    return [prompt_of(draw_facts(chance)) for _ in range(n)]


def facts_in(prompt: str) -> frozenset[Fact]:
    """The facts that a prompt lists; what is not of a prompt's form gives none."""
    listed = (part.split() for part in prompt.partition(":")[0].split(","))
    return frozenset(Fact(*words) for words in listed if len(words) == 2)


def stated(response: str) -> list[Fact]:
    """The facts that a response states, in order, repeated ones too."""
    return [Fact(found["attribute"], found["value"]) for found in _CLAUSES.finditer(response)]


def coverage(prompt: str, response: str) -> Coverage:
    """Facts stated, each counted once, that the prompt gives and that it does not."""
    given, said = facts_in(prompt), set(stated(response))
    return Coverage(len(said & given), len(said - given))


def gold(of_prompts: list[str], responses: list[str]) -> list[float]:
    """The true reward: facts covered - 0.5 * wrong facts - 0.02 * words."""
    scores = []
    for prompt, response in zip(of_prompts, responses, strict=True):
        correct, wrong = coverage(prompt, response)
        scores.append(correct - WRONG_COST * wrong - WORD_COST * len(response.split()))
    return scores


def generate_reports(n: int, seed: int, *, errors: float = ERROR_SHARE, filler: float = 0.5) -> list[Report]:
    """`n` mediocre reports, which state one to five of six facts; the first ones are the same whatever n is.

    `errors`: share of facts stated with another value; `filler`: share of clauses that filler stands before. Raises
    OptionError for shares outside [0, 1].
    """
    for name, share in (("errors", errors), ("filler", filler)):
        if not 0 <= share <= 1:
            raise OptionError(f"option {name}={share}: expected a share in [0, 1]")
    chance = random.Random(derive_seed("reports", seed))
    return [_report(draw_facts(chance), chance, errors, filler) for _ in range(n)]


def _report(facts: Sequence[Fact], chance: random.Random, errors: float, filler: float) -> Report:
    clauses = []
    for fact in chance.sample(facts, chance.randint(1, FACTS - 1)):
        value = fact.value
        if chance.random() < errors:
            value = chance.choice([other for other in VALUES[fact.attribute] if other != fact.value])
        clause = chance.choice(SHAPES).format(**fact._replace(value=value)._asdict())
        clauses.append(f"{chance.choice(FILLER)} {clause}" if chance.random() < filler else clause)
    return Report(prompt_of(facts), f" {', '.join(clauses)}.")
