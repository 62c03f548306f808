"""Which papers belong together: those compared with one another, and those that share what they are about."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from paperworks.catalog.card import Card

MOST_NEIGHBOURS = 6


@dataclass(frozen=True)
class Related:
    """Papers related to one. `baselines` it is compared with, `baseline_of` compare with it, `neighbours` share keywords."""

    baselines: tuple[Card, ...]
    baseline_of: tuple[Card, ...]
    neighbours: tuple[Card, ...]


def related(card: Card, cards: Iterable[Card]) -> Related:
    """The papers of the catalogue that are related to one of them; no paper twice."""
    others = [each for each in cards if each.slug != card.slug]
    baselines = tuple(each for each in others if _names(each) & _baseline_names(card))
    baseline_of = tuple(each for each in others if _names(card) & _baseline_names(each))
    taken = {each.slug for each in (*baselines, *baseline_of)}
    counts = Counter(word for each in (card, *others) for word in _keywords(each))

    def likeness(other: Card) -> float:
        shared = _keywords(card) & _keywords(other)
        kin = (
            (other.topic == card.topic != "")
            + 0.5 * (other.wing == card.wing)
            + 0.25 * len(set(other.nouns) & set(card.nouns))
        )
        return sum(1 / math.log(1 + counts[word]) for word in shared) + (kin if shared else 0.2 * kin)

    ranked = sorted((each for each in others if each.slug not in taken), key=lambda each: (-likeness(each), each.slug))
    return Related(baselines, baseline_of, tuple(ranked[:MOST_NEIGHBOURS]))


def _names(card: Card) -> set[str]:
    """What other papers call it: its short name and what stands before the colon of its title."""
    before_colon = card.title.split(":")[0] if ":" in card.title else card.slug
    return {_plain(card.slug), _plain(before_colon)}


def _baseline_names(card: Card) -> set[str]:
    """The baselines as they stand, and without what is added in brackets or behind a "with"."""
    names = set()
    for text in card.baselines:
        names |= {_plain(text), _plain(re.split(r"[(,]| with | on ", text)[0])}
    return names - {""}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _keywords(card: Card) -> set[str]:
    return {keyword.lower() for keyword in card.keywords}
