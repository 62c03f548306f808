"""A report as one HTML page that needs nothing else: no script, no outside resource; light and dark, screen and paper.

Everything that is put in is escaped, except figures, which must come from `core.plots`.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from paperworks.core import plots
from paperworks.core.files import write_atomic

if TYPE_CHECKING:
    from markupsafe import Markup

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Finding:
    """A claim and what was found: one box of a page."""

    sentence: str
    verdict: Literal["holds", "reversed", "not shown", "not tested"]
    evidence: str = ""
    note: str = ""


@dataclass
class _Section:
    title: str
    anchor: str
    blocks: list[dict[str, Any]] = field(default_factory=list)


class Page:
    """Built from top to bottom: `Page("rDPO").section("Results").table(...).figure(...).save("report.html")`.

    Every method returns the page. What comes before the first `section` stands above the table of contents.
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self._title, self._subtitle = title, subtitle
        self._sections = [_Section("", "top")]
        self._glyphs: dict[str, str] = {}  # outlines of the letters in its figures

    def section(self, title: str, text: str = "") -> Page:
        """Begins a section."""
        self._sections.append(_Section(title, f"section-{len(self._sections)}"))
        return self.text(text) if text else self

    def text(self, text: str) -> Page:
        """Paragraphs, parted by blank lines; `code` stands between backticks."""
        return self._add("text", paragraphs=[part for part in re.split(r"\n\s*\n", text.strip()) if part])

    def note(self, text: str) -> Page:
        """A remark that must not be missed."""
        return self._add("note", text=text)

    def callout(self, title: str, lines: Sequence[str], *, kind: Literal["answer", "warning"] = "answer") -> Page:
        """A box with a title and one line or several: what a reader in a hurry takes away, or must not overlook."""
        return self._add("callout", title=title, lines=list(lines), mood=kind)

    def table(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[object]],
        *,
        caption: str = "",
        highlight: Collection[tuple[int, int]] = (),
        right: Collection[str] = (),
    ) -> Page:
        """A table; `highlight` holds (row, column) of bold cells, `right` the columns aligned right (numbers)."""
        marked = set(highlight)
        cells = [
            [{"text": str(cell), "bold": (i, j) in marked, "right": columns[j] in right} for j, cell in enumerate(row)]
            for i, row in enumerate(rows)
        ]
        head = [{"text": column, "right": column in right} for column in columns]
        return self._add("table", head=head, rows=cells, caption=caption)

    def figure(self, svg: str, caption: str = "") -> Page:
        """A figure made by `core.plots`. Raises ValueError for anything but SVG."""
        from markupsafe import Markup

        if not _is_plain_svg(svg):
            raise ValueError("a figure is SVG text without scripts, as core.plots makes it")
        return self._add("figure", svg=Markup(plots.with_shared_glyphs(svg, self._glyphs)), caption=caption)

    def verdicts(self, findings: Sequence[Finding]) -> Page:
        """A box a claim, coloured and marked by its verdict."""
        return self._add("verdicts", findings=list(findings))

    def facts(self, facts: Mapping[str, object]) -> Page:
        """Names with values, side by side."""
        return self._add("facts", facts=[(name, str(value)) for name, value in facts.items()])

    def commands(self, commands: Sequence[str]) -> Page:
        """Command lines to copy."""
        return self._add("commands", commands=list(commands))

    def render(self) -> str:
        """The page as HTML text."""
        import jinja2

        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
        )
        environment.filters["inline_code"] = _inline_code
        return environment.get_template("page.html").render(
            title=self._title,
            subtitle=self._subtitle,
            sections=self._sections,
            has_contents=len(self._sections) > 3,
            date=datetime.datetime.now().strftime("%Y-%m-%d %H:%M"),
        )

    def save(self, path: str | Path) -> Path:
        """Writes the page and returns its path."""
        write_atomic(path, self.render())
        return Path(path)

    def _add(self, kind: str, **content: Any) -> Page:
        self._sections[-1].blocks.append({"kind": kind, **content})
        return self


def _is_plain_svg(text: str) -> bool:
    from xml.etree import ElementTree

    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return False
    if root.tag.rpartition("}")[2] != "svg":
        return False
    for element in root.iter():
        if element.tag.rpartition("}")[2].lower() in ("script", "foreignobject"):
            return False
        for name, value in element.attrib.items():
            bare = name.rpartition("}")[2].lower()
            if bare.startswith("on") or (bare == "href" and not value.startswith("#")):
                return False
    return True


def _inline_code(text: str) -> Markup:
    from markupsafe import Markup, escape

    return Markup(re.sub(r"`([^`\n]+)`", r"<code>\1</code>", str(escape(text))))
