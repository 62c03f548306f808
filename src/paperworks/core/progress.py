"""How a command talks while it works: live bars on a terminal, a plain line now and then elsewhere, tables.

Progress goes to standard error, tables to standard output, so that output can be piped. Where the environment names a file
for it, progress is also kept there for another process to read (see progress_mirror).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence, Sized
from types import TracebackType
from typing import Any, TextIO, TypeVar

from paperworks.core.progress_mirror import mirror_asked_for

T = TypeVar("T")

_SECONDS_BETWEEN_LINES = 5.0
_MIRROR = mirror_asked_for()  # of the process: asked once, so that its workers, which import this too, have none


class Bar:
    """One line of progress inside a `Progress`."""

    def __init__(self, owner: Progress, label: str, total: float | None) -> None:
        self._owner, self.label, self.total = owner, label, total
        self.done, self.note = 0.0, ""
        self.began = self._last_line = time.monotonic()
        self._task = owner._add(self)

    def advance(self, by: float = 1, note: str | None = None) -> None:
        """Moves on by `by` and, where given, changes the note behind the bar (a loss, a name)."""
        self.update(self.done + by, note)

    def update(self, done: float, note: str | None = None) -> None:
        """Sets how much is done."""
        self.done, self.note = done, self.note if note is None else note
        self._owner._show(self)

    def finish(self, note: str | None = None) -> None:
        """Shows the bar as complete."""
        self.note = self.note if note is None else note
        self._owner._finish(self)


class Progress:
    """Several bars at once: `with Progress() as progress: bar = progress.bar("train", total=100); bar.advance()`.

    On a terminal they are live (rich); elsewhere each writes one plain line about every 5 s; with `quiet` nothing.
    """

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._quiet = quiet
        self._live = None if quiet or not _is_terminal(self._stream) else _rich_progress(self._stream)
        self._mirror = None if quiet else _MIRROR

    def bar(self, label: str, total: float | None = None) -> Bar:
        """A new bar below the others; `total` None when the amount of work is not known."""
        return Bar(self, label, total)

    def say(self, text: str) -> None:
        """A line above the bars."""
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False)
        elif not self._quiet:
            print(text, file=self._stream, flush=True)
        if self._mirror is not None:
            self._mirror.say(text)

    def track(self, items: Iterable[T], label: str, total: float | None = None) -> Iterator[T]:
        """The items, one bar step each."""
        bar = self.bar(label, len(items) if total is None and isinstance(items, Sized) else total)
        for item in items:
            yield item
            bar.advance()
        bar.finish()

    def __enter__(self) -> Progress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        if self._mirror is not None:
            self._mirror.update(at_once=True)

    def _add(self, bar: Bar) -> Any:
        if self._mirror is not None:
            self._mirror.add(bar)
        return None if self._live is None else self._live.add_task(_escaped(bar.label), total=bar.total, note="")

    def _show(self, bar: Bar) -> None:
        if self._live is not None:
            self._live.update(bar._task, completed=bar.done, note=_escaped(bar.note))
        elif not self._quiet and time.monotonic() - bar._last_line >= _SECONDS_BETWEEN_LINES:
            bar._last_line = time.monotonic()
            print(_plain_line(bar), file=self._stream, flush=True)
        if self._mirror is not None:
            self._mirror.update()

    def _finish(self, bar: Bar) -> None:
        if self._live is not None:
            total = bar.total if bar.total is not None else max(bar.done, 1)
            self._live.update(bar._task, total=total, completed=total, note=_escaped(bar.note))
        elif not self._quiet:
            print(_plain_line(bar) + ", done", file=self._stream, flush=True)
        if self._mirror is not None:
            self._mirror.finish(bar)


def progress(
    items: Iterable[T], label: str, total: float | None = None, *, quiet: bool = False, stream: TextIO | None = None
) -> Iterator[T]:
    """The items with one bar on standard error."""
    with Progress(quiet=quiet, stream=stream) as shown:
        yield from shown.track(items, label, total)


def table(
    rows: Sequence[Sequence[object]],
    columns: Sequence[str],
    title: str = "",
    *,
    right: Sequence[str] = (),
    stream: TextIO | None = None,
) -> None:
    """Prints rows under column names: a rich table on a terminal, aligned plain text elsewhere.

    `right` names the columns to align right (numbers).
    """
    out = sys.stdout if stream is None else stream
    cells = [[str(cell) for cell in row] for row in rows]
    if _is_terminal(out):
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        drawn = Table(title=Text(title) if title else None, title_justify="left", header_style="bold", box=_box())
        for column in columns:
            drawn.add_column(Text(column), justify="right" if column in right else "left", overflow="fold")
        for row in cells:
            drawn.add_row(*(Text(cell) for cell in row))  # Text: a name such as [red] is a name, not markup
        Console(file=out).print(drawn)
        return
    print(plain_table(cells, columns, title, right=right), file=out)


def plain_table(
    rows: Sequence[Sequence[object]], columns: Sequence[str], title: str = "", *, right: Sequence[str] = ()
) -> str:
    """The table as aligned text without colour."""
    lines = [list(columns), *([" ".join(str(cell).split("\n")) for cell in row] for row in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]

    def text(line: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for cell, width, column in zip(line, widths, columns)
        ]
        return "  ".join(padded).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([*([title] if title else []), text(lines[0]), rule, *map(text, lines[1:])])


def duration(seconds: float) -> str:
    """`0.4 s`, `42 s`, `3 min 05 s`, `2 h 07 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _plain_line(bar: Bar) -> str:
    seconds = time.monotonic() - bar.began
    if not bar.total:
        amount = f"{bar.done:g}"
    else:
        amount = f"{bar.done:g}/{bar.total:g} ({bar.done / bar.total:.0%})"
    left = (
        f", {duration(seconds * (bar.total - bar.done) / bar.done)} left"
        if bar.total and 0 < bar.done < bar.total
        else ""
    )
    return f"{bar.label}: {amount}, {duration(seconds)}{left}{f', {bar.note}' if bar.note else ''}"


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _box() -> Any:
    from rich import box

    return box.SIMPLE_HEAD


def _rich_progress(stream: TextIO) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    return RichProgress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}"),
        console=Console(file=stream),
        refresh_per_second=4,
    )
