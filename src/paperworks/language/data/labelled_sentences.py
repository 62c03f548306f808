"""Sentences with a binary label, one a line, as SST-2 is published (sentence, tab, label)."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from paperworks.core.errors import DataError
from paperworks.language.data.problems import BadRow, Tally, shown
from paperworks.language.data.sources import lines_of
from paperworks.language.data.values import filled_text


class LabelledSentence(NamedTuple):
    """A sentence and its class, 0 or 1."""

    sentence: str
    label: int


def read_labelled_sentences(path: str | Path) -> list[LabelledSentence]:
    """Reads `sentence<TAB>label` lines (label 0 or 1; a header line is left out), gzipped or not.

    Raises DataError for a missing file, a line of another form (with the number of further ones) or no line at all.
    """
    rows: list[LabelledSentence] = []
    tally = Tally(str(path))
    if not Path(path).is_file():
        raise DataError("no such file; expected lines of sentence, tab, 0 or 1", file=path)
    for number, line in lines_of(Path(path)):
        if not line.strip() or (number == 1 and line.rstrip().lower().endswith("\tlabel")):
            continue
        sentence, _, label = line.rpartition("\t")
        try:
            filled_text(sentence, "sentence")
            if label.strip() not in ("0", "1"):
                raise BadRow("bad label", f"expected 0 or 1 after the last tab; found {shown(label)}", "label")
            rows.append(LabelledSentence(sentence, int(label)))
        except BadRow as problem:
            tally.add(number, problem)
    if tally.first is not None:
        raise tally.error()
    if not rows:
        raise DataError("no rows; expected lines of sentence, tab, 0 or 1", file=path)
    return rows
