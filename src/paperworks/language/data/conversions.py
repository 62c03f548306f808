"""Rows of one kind made into rows of another: preferences into feedback, demonstrations and scored groups."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from paperworks.language.data.problems import BadRow
from paperworks.language.data.schemas import Demonstration, Feedback, Preference, ScoredGroup


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


def preferences_to_groups(rows: Iterable[Preference]) -> list[ScoredGroup]:
    """One row a pair, scores 1/4 and -1/4, with which CoPG is IPO (arXiv 2406.19185, section 4).

    Raises BadRow for responses of several turns.
    """
    groups = []
    for row in rows:
        if not isinstance(row.chosen, str) or not isinstance(row.rejected, str):
            raise BadRow("several turns", "expected answers of one turn, to be scored 1/4 and -1/4", "chosen")
        groups.append(ScoredGroup(row.prompt, (row.chosen, row.rejected), (0.25, -0.25), row.weight, row.where))
    return groups


FROM_PREFERENCES: dict[str, Callable[[Iterable[Preference]], list[Any]]] = {
    "feedback": preferences_to_feedback,
    "demonstration": preferences_to_demonstrations,
    "scored-group": preferences_to_groups,
}
"""By the name of the wanted schema: how `read` makes it from a file of preferences."""
