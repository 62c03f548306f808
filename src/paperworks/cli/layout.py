"""Text on a terminal without a library: its width, colours where they are wanted, cutting and wrapping.

Hand-made because importing rich takes longer than all of `paperworks list`.
"""

from __future__ import annotations

import os
import sys
import textwrap

WIDEST = 120  # characters a line; longer lines are hard to read
_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


def on_terminal() -> bool:
    """Whether a person reads standard output directly."""
    return sys.stdout.isatty()


def width() -> int:
    """Characters a line: $COLUMNS, else the terminal's width, else 80; between 40 and 120."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal():
        found = int(columns)
    else:
        try:
            found = os.get_terminal_size(sys.stdout.fileno()).columns
        except (OSError, ValueError):
            found = 80
    return min(max(found or 80, 40), WIDEST)


def paint(text: str, *styles: str) -> str:
    """`text` in bold, dim, red, green, yellow or cyan on a terminal; as it is in a pipe, with NO_COLOR or TERM=dumb."""
    if not text or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not on_terminal():
        return text
    return f"\x1b[{';'.join(_CODES[style] for style in styles)}m{text}\x1b[0m"


def cut(text: str, length: int) -> str:
    """`text` in at most `length` characters, its end marked where something is missing."""
    if len(text) <= length:
        return text
    return text[: length - 1].rstrip() + "…" if length > 0 else ""


def paragraph(text: str, *, indent: int = 2, hanging: int = 0) -> str:
    """`text` wrapped to the terminal, each line indented, the ones after the first by `hanging` more."""
    return textwrap.fill(
        text,
        width(),
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + hanging),
        break_long_words=False,
        break_on_hyphens=False,
    )
