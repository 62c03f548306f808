"""The documentation's pages: one a built paper, and the index of all, from cards, recorded results and docstrings.

`python -m paperworks.catalog.pages FOLDER` writes them (`make docs` does). The same inputs give the same bytes, so a
test can say whether the pages in the repository are up to date; what was run on this machine has no part in them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import dedent
from typing import Any

from paperworks.catalog.card import WINGS, Card
from paperworks.catalog.commands import uses
from paperworks.catalog.evidence import PACKAGE, is_usable, read_recorded, results_folder
from paperworks.catalog.index import Catalog
from paperworks.catalog.record import VERDICT_RULE, arm_rows, circumstances, metric_title, read_record, seed_counts
from paperworks.catalog.source_texts import ObjectiveText, module_docstring, objectives_in

MARKS = {"holds": "✓ holds", "reversed": "✗ reversed", "not shown": "○ not shown"}


def pages(catalog: Catalog | None = None, results: Path | None = None) -> dict[str, str]:
    """All pages by file name: `index.md`, and `<slug>.md` for each paper whose module is there."""
    catalog = catalog or Catalog.open()
    results = results or results_folder()
    objectives = objectives_in(PACKAGE / "language" / "objectives")
    built = [card for card in catalog.cards() if is_usable(card.slug)]
    made = {
        f"{card.slug}.md": paper_page(card, read_record(results / f"{card.slug}.json"), objectives) for card in built
    }
    return {"index.md": index_page(catalog.cards(), results), **made}


def write_pages(folder: Path) -> list[Path]:
    """Write every page into `folder` and remove pages of papers that are no longer there. Returns what changed."""
    from paperworks.core.files import write_atomic

    folder.mkdir(parents=True, exist_ok=True)
    made, changed = pages(), []
    for name, text in made.items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_atomic(path, text)
            changed.append(path)
    for path in folder.glob("*.md"):
        if path.name not in made:
            path.unlink()
            changed.append(path)
    return changed


def index_page(cards: Iterable[Card], results: Path) -> str:
    """All papers by wing: what each gives, and what its recorded experiment showed."""
    cards = list(cards)
    lines = [
        "# The papers",
        f"All {len(cards)} papers of the catalogue. Those with a link are built: their methods can be applied, their "
        "experiments run. `paperworks list`, `show` and `search` give the same on a terminal.",
    ]
    for wing in WINGS:
        members = [card for card in cards if card.wing == wing]
        if members:
            rows = [_index_row(card, results) for card in members]
            lines += [f"## {wing.capitalize()}", _table(["paper", "arXiv", "what it gives", "claims recorded"], rows)]
    return _page(lines)


def paper_page(card: Card, record: Mapping[str, Any] | None, objectives: Sequence[ObjectiveText]) -> str:
    """The page of one built paper."""
    facts = [f"{card.venue}, {card.year}" if str(card.year) not in card.venue else card.venue, f"wing {card.wing}"]
    if card.arxiv:
        facts.insert(0, f"[arXiv {card.arxiv}](https://arxiv.org/abs/{card.arxiv})")
    own = [each for each in objectives if card.arxiv and f"arXiv {card.arxiv}" in each.docstring]
    source = PACKAGE / "papers" / f"{card.slug.replace('-', '_')}.py"
    lines = [
        "<!-- Written by `make docs` from the card, the recorded results and the docstrings: do not edit. -->",
        f"# {card.slug}: {_plain(card.title)}",
        " · ".join(facts),
        f"**{_plain(card.summary)}**",
        *(["## In plain words", _plain(card.plain)] if card.plain else []),
        "## What it gives you",
        _plain(card.gives),
        "## Use it",
        _commands(card),
        f"Your data: {_plain(card.data)}",
        *(block for each in own for block in _objective(each)),
        "## How it works",
        _plain(card.mechanism),
        f"How it is composed here (`{source.relative_to(PACKAGE.parent).as_posix()}`):",
        *_docstring(module_docstring(source)),
        *(["## Easy to get wrong", "\n".join(f"- {_plain(trap)}" for trap in card.traps)] if card.traps else []),
        "## The claim, and what was found",
        _plain(card.claim),
        *_evidence(card, record),
        "## The paper's own settings and figures",
        f"Compared with: {_plain(', '.join(card.baselines))}." if card.baselines else "",
        f"Published settings: {_plain(card.defaults)}",
        _published(card),
        "## Where the method comes from",
        _plain(f"{card.sourcing.sentence} {card.sourcing.note}"),
        f"Official code: {_plain(card.code)}." if card.code else "No official code was found.",
    ]
    return _page(lines)


def _index_row(card: Card, results: Path) -> list[str]:
    name = f"[{card.slug}]({card.slug}.md)" if is_usable(card.slug) else card.slug
    arxiv = f"[{card.arxiv}](https://arxiv.org/abs/{card.arxiv})" if card.arxiv else ""
    recorded = read_recorded(results / f"{card.slug}.json")
    if recorded is None:
        found = ""
    elif recorded.problem:
        found = "record damaged"
    else:
        shown = [f"{count} {verdict}" for verdict, count in recorded.counts.items() if count]
        found = ", ".join(shown)
    return [name, arxiv, f"{_plain(card.title)}: {_plain(card.summary)}", found]


def _commands(card: Card) -> str:
    return "```sh\n" + "\n".join([*uses(card), f"paperworks run {card.slug}"]) + "\n```"


def _objective(each: ObjectiveText) -> list[str]:
    rows = [
        [f"`--{option.name.replace('_', '-')}`", f"`{option.default}`", _plain(option.help)] for option in each.options
    ]
    blocks = [f"### The objective `{each.name}`", f"`from paperworks.language.objectives import {each.class_name}`"]
    blocks += _docstring(each.docstring)
    return [*blocks, _table(["option", "default", "meaning"], rows)] if rows else blocks


def _docstring(text: str) -> list[str]:
    """A docstring's paragraphs: indented ones as they stand, `names` as code, the rest as plain text."""
    blocks = []
    for paragraph in re.split(r"\n\s*\n", text):
        if paragraph.startswith("    "):
            blocks.append(f"```text\n{dedent(paragraph)}\n```")
        else:
            pieces = paragraph.split("`")  # every second one stood between backticks
            shown = [f"`{piece}`" if at % 2 else _plain(piece, keep_ends=True) for at, piece in enumerate(pieces)]
            blocks.append("".join(shown).strip())
    return blocks


def _evidence(card: Card, record: Mapping[str, Any] | None) -> list[str]:
    again = f"paperworks run {card.slug}"
    if record is None:
        return [f"No run has been recorded yet; `{again}` tests the claims on your machine."]
    claims = [[MARKS[each["verdict"]], _plain(each["text"]), _plain(each["evidence"])] for each in record["claims"]]
    counts = seed_counts(record["seeds"])
    blocks = [
        f"Recorded {record['date'][:10]} with the budget `{record['budget']}`, {counts}. {VERDICT_RULE}",
        _table(["verdict", "claim", "evidence"], claims),
    ]
    for part in record["parts"]:
        blocks.append(f"### {_plain(part['name'])}. {_plain(part['title'])}")
        for setting in part["settings"]:
            blocks += [f"**{_plain(setting['name'])}**"] if setting["name"] else []
            blocks.append(_arms(setting["arms"], part["metrics"]))
    if record.get("differences"):
        blocks += ["### What differs from the paper", _plain(record["differences"])]
    if record.get("notes"):
        blocks += ["### Notes", _plain(record["notes"])]
    return [*blocks, _plain(circumstances(record)), f"To repeat it: `{again} --budget {record['budget']}`."]


def _arms(arms: Iterable[Mapping[str, Any]], metrics: Sequence[Mapping[str, Any]]) -> str:
    columns = ["arm", *(_plain(metric_title(metric)) for metric in metrics)]
    return _table(columns, [[_plain(label), *numbers] for label, *numbers in arm_rows(arms, metrics)])


def _published(card: Card) -> str:
    if not card.published:
        return "No published figures are at hand."
    rows = [
        [_plain(text) for text in (each.setting, each.metric, each.figures, each.source)] for each in card.published
    ]
    return _table(["setting", "metric", "figures", "source"], rows)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table. Cells are Markdown; a bar within one is escaped here."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _plain(text: str, *, keep_ends: bool = False) -> str:
    """Text as Markdown that shows it letter by letter, on one line; `keep_ends` for a piece of a sentence."""
    line = re.sub(r"\s+", " ", text)
    escaped = re.sub(r"([\\`*_\[\]#])", r"\\\1", line if keep_ends else line.strip())
    return escaped.replace("&", "&amp;").replace("<", "&lt;")


def _page(blocks: Iterable[str]) -> str:
    return "\n\n".join(block for block in blocks if block) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Write the pages into the folder named."""
    if len(arguments) != 1:
        print("usage: python -m paperworks.catalog.pages FOLDER", file=sys.stderr)
        return 2
    changed = write_pages(Path(arguments[0]))
    print(
        "\n".join(f"wrote {path}" if path.exists() else f"removed {path}" for path in changed) or "pages are up to date"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
