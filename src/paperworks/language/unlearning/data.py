"""The rows of an unlearning run: what to forget, what to answer instead, what to keep; and that these exclude each other.

Knows rows and answers, nothing of models or losses beyond what an objective says it needs.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from paperworks.core.errors import DataError
from paperworks.core.seeding import derive_seed
from paperworks.language.data.conversation import as_messages, is_blank, plain_text
from paperworks.language.data.dataset import Dataset
from paperworks.language.data.problems import BadRow
from paperworks.language.data.schemas import Forget, Retain, Text
from paperworks.language.data.sources import lines_of
from paperworks.language.data.values import filled_text
from paperworks.language.objectives.unlearning import UnlearningObjective
from paperworks.language.unlearning.refusals import REFUSALS

_NAMED = 3  # overlapping rows that an error names; the others are counted
_ANSWER_FIELDS = ("idk", "answer", "response", "text")
_ENDINGS = (".txt", ".jsonl", ".ndjson")


def assemble(
    forget: Dataset[Forget],
    retain: Dataset[Retain] | None,
    alternatives: Sequence[str] | None,
    *,
    seed: int,
    objective: UnlearningObjective,
) -> Dataset[Any]:
    """The rows that `objective` trains on: those to forget, each with its alternative answer, then those to keep.

    Parameters:
      alternatives: answers to give in place of what is forgotten, one drawn a row by `seed` and the row's number, the
        same in every epoch (the reference is scored once); None: a list that comes with the package. A row's own
        `alternative` stays. Only objectives that need alternatives have rows with them. White space with which a row's
        answer begins is put before the one that takes its place, so that both follow the prompt alike.
      retain: left out (with a note) where the objective does not train on it; checked against `forget` all the same.

    Raises DataError for an empty forget set, for rows in both (the first of them named), and where the objective needs
    rows to keep or alternatives and has none.
    """
    if not len(forget):
        raise DataError("no rows to forget; expected at least one (--forget FILE)", file=forget.report.source or None)
    if retain is not None:
        refuse_overlap(forget, retain)
    if objective.needs_retain and (retain is None or not len(retain)):
        raise DataError(
            f"{objective.name} needs rows to keep beside those to forget; give --retain FILE, or do without: "
            "--retain-weight 0 --kl-weight 0"
        )
    noted = dict(forget.report.noted)
    rows: list[Any] = list(forget.rows)
    if objective.needs_alternative:
        rows, drawn = _with_alternatives(
            forget.rows, REFUSALS if alternatives is None else alternatives, seed, objective
        )
        if drawn and alternatives is None:
            noted["alternative from the built-in list (your own: --idk FILE)"] = drawn
    elif alternatives is not None:
        noted[f"answer in place of others that {objective.name} does not use (--idk)"] = len(alternatives)
    schema, sources = "forget", [forget.report.source]
    if retain is not None and objective.needs_retain:
        rows += retain.rows
        schema, sources = f"forget ({len(forget)}) and retain ({len(retain)})", [*sources, retain.report.source]
        for kind, count in retain.report.noted.items():
            noted[kind] = noted.get(kind, 0) + count
    elif retain is not None and len(retain):
        noted[f"row to keep that {objective.name} does not train on (retain_weight and kl_weight are 0)"] = len(retain)
    together = forget.with_rows(rows)
    report = replace(
        together.report,
        source=" + ".join(filter(None, sources)),
        schema=schema,
        noted=noted,
        mean_characters={name: mean for name, mean in together.report.mean_characters.items() if mean},
    )
    return Dataset(together.rows, report)


def refuse_overlap(forget: Dataset[Forget], retain: Dataset[Retain]) -> None:
    """Raises DataError where a prompt to forget is also one to keep; case and white space make no difference."""
    kept: dict[str, Retain] = {}
    for row in retain.rows:
        kept.setdefault(_normalised(as_messages(row.prompt)), row)
    both = [(row, kept[prompt]) for row in forget.rows if (prompt := _normalised(as_messages(row.prompt))) in kept]
    if not both:
        return
    same = sum(_normalised(row.forget) == _normalised(other.retain) for row, other in both)
    named = [f"{_place(forget, row)} = {_place(retain, other)}" for row, other in both[:_NAMED]]
    more = f" and {len(both) - _NAMED} more" if len(both) > _NAMED else ""
    raise DataError(
        f"{len(both)} of {len(forget)} prompts to forget are also among those to keep, {same} with the same answer: "
        f"{', '.join(named)}{more}; take them out of one of the two"
    )


def read_alternatives(path: str | Path) -> list[str]:
    """Answers to give in place of what is forgotten, from a file with one a line.

    A line is the answer itself, a JSON string, or a JSON object with the answer as `idk`, `answer`, `response` or
    `text`. Empty lines are left out. Raises DataError (file:line) for anything else, and for a file without answers.
    """
    path = Path(path).expanduser()
    ending = Path(path.stem).suffix if path.suffix.lower() == ".gz" else path.suffix
    if ending.lower() not in _ENDINGS:
        raise DataError(f"expected answers one a line, in a file that ends in {', '.join(_ENDINGS)}", file=path)
    answers = []
    for line, content in lines_of(path):
        if not content.strip():
            continue
        try:
            answers.append(str(filled_text(_answer(content.strip()), "idk")).strip())
        except BadRow as problem:
            raise DataError(problem.what, file=path, line=line) from None
    if not answers:
        raise DataError("no answers; expected at least one line with one", file=path)
    return answers


def _answer(line: str) -> object:
    """What a line holds: itself, or what its JSON says."""
    if line[0] not in '{"':
        return line
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        if line[0] == '"':
            return line  # a sentence may begin with a quotation
        raise BadRow("not JSON", "begins with { but is not JSON; expected an object or the answer itself") from None
    if isinstance(value, str):
        return value
    field = next((name for name in _ANSWER_FIELDS if name in value), None)
    if field is None:
        raise BadRow("missing field", f"expected the answer as {', '.join(_ANSWER_FIELDS)}; found {_names(value)}")
    return value[field]


def _names(value: dict[str, Any]) -> str:
    return f"an object with {', '.join(map(ascii, value)) or 'no keys'}"[:80]


def _with_alternatives(
    rows: Iterable[Forget], alternatives: Sequence[str], seed: int, objective: UnlearningObjective
) -> tuple[list[Any], int]:
    """The rows, each with an alternative; and how many of them were drawn."""
    out, drawn = [], 0
    for number, row in enumerate(rows):
        if not is_blank(row.alternative):
            out.append(row)
            continue
        if not alternatives:
            raise DataError(
                f"{objective.name} needs an answer to give in its place; give --idk FILE, or the field in every row",
                file=row.where.file or None,
                line=row.where.line or None,
                field="alternative",
            )
        text = random.Random(derive_seed(seed, "alternatives", number)).choice(alternatives)
        out.append(replace(row, alternative=_beginning(row.forget) + text))
        drawn += 1
    return out, drawn


def _beginning(text: Text) -> str:
    """The white space that a plain text begins with."""
    return text[: len(text) - len(text.lstrip())] if isinstance(text, str) else ""


def _normalised(text: Text) -> str:
    return " ".join(plain_text(text).casefold().split())


def _place(dataset: Dataset[Any], row: Any) -> str:
    """file:line of a row, or its number where it came from no file."""
    return str(row.where) if row.where.file else f"row {dataset.rows.index(row) + 1}"
