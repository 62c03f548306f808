"""Rows of one kind made into rows of another: preferences into feedback and demonstrations."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from paperworks.language.data.schemas import Demonstration, Feedback, Preference


def preferences_to_feedback(rows: Iterable[Preference]) -> list[Feedback]:
    """Two rows a pair, one after the other: chosen is desirable, rejected is not; each keeps the pair's weight."""
    return [
        Feedback(row.prompt, response, desirable, row.weight, row.degrees if desirable else (), row.where)
        for row in rows
        for response, desirable in ((row.chosen, True), (row.rejected, False))
    ]


def preferences_to_demonstrations(rows: Iterable[Preference]) -> list[Demonstration]:
    """One row a pair: the chosen response is the one to imitate."""
    return [Demonstration(row.prompt, row.chosen, row.weight, row.where) for row in rows]


FROM_PREFERENCES: dict[str, Callable[[Iterable[Preference]], list[Any]]] = {
    "feedback": preferences_to_feedback,
    "demonstration": preferences_to_demonstrations,
}
"""By the name of the wanted schema: how `read` makes it from a file of preferences."""
