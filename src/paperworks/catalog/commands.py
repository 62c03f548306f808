"""The command lines that apply a paper: the same on a terminal, in the docs and on the page."""

from __future__ import annotations

import shlex

from paperworks.catalog.card import Card

_LANGUAGE = {
    "train": "paperworks train {slug} --model smollm2-135m --data FILE.jsonl --out my-model",
    "compare": "paperworks compare dpo {slug} --model smollm2-135m --data FILE.jsonl --seeds 5",
    "generate": "paperworks generate --model my-model --prompt TEXT",
    "evaluate": "paperworks evaluate --model my-model --data FILE.jsonl",
}


def uses(card: Card) -> list[str]:
    """The lines that apply the paper to one's own model and data: the card's own, else the usual ones of its verbs."""
    if card.uses:
        return list(card.uses)
    if card.wing != "language":
        return []
    return [_LANGUAGE[verb].format(slug=card.slug) for verb in card.verbs if verb in _LANGUAGE]


def commands(card: Card) -> list[str]:
    """The experiment's line, then those that apply the paper."""
    return [f"paperworks run {card.slug}", *uses(card)]


def methods(card: Card) -> list[str]:
    """The names that `paperworks train` has for the paper's methods, as its lines have them."""
    names: dict[str, None] = {}
    for line in uses(card):
        words = shlex.split(line)
        if words[1:2] == ["train"] and len(words) > 2:
            names[words[2]] = None
    return list(names)
