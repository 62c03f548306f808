"""`paperworks list`: all papers by wing, as two lines each on a terminal, one aligned line each in a pipe, or JSON."""

from __future__ import annotations

import argparse

from paperworks.catalog import Card, Catalog, Evidence
from paperworks.catalog.card import VERBS, WINGS
from paperworks.catalog.evidence import counts_text
from paperworks.cli.layout import cut, on_terminal, paint, paragraph, width

HELP = "List all papers: what each gives a user, whether it is usable here, what its experiment showed."
JSON_FIELDS = ("slug", "title", "arxiv", "year", "venue", "wing", "summary", "verbs", "nouns", "keywords")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--wing", choices=WINGS, help="only papers of this wing")
    parser.add_argument("--usable", action="store_true", help="only papers that are usable in this installation")
    parser.add_argument("--verb", choices=VERBS, help="only papers that this verb applies")
    parser.add_argument("--year", type=int, metavar="Y", help="only papers first public in this year")
    parser.add_argument("--json", action="store_true", help="a JSON list for programs")


def run(args: argparse.Namespace) -> int:
    catalog = Catalog.open()
    cards = [
        card
        for card in catalog.cards()
        if args.wing in (None, card.wing)
        and args.year in (None, card.year)
        and (args.verb is None or args.verb in card.verbs)
        and (card.usable or not args.usable)
    ]
    if args.json:
        import json

        entries = [catalog.as_dict(card.slug) for card in cards]
        names = (*JSON_FIELDS, "usable", "experiment")
        print(json.dumps([{name: entry[name] for name in names} for entry in entries], indent=2, ensure_ascii=False))
    elif on_terminal():
        print(_for_reading(cards, catalog))
    else:
        print(_for_pipes(cards, catalog))
    return 0


def experiment_text(evidence: Evidence) -> str:
    """What an experiment showed, in a few words: "3/4 claims hold, 1 reversed, run here"; "" where nothing is known."""
    parts = []
    if evidence.recorded and evidence.recorded.problem:
        parts.append("record damaged")
    elif evidence.recorded:
        parts.append(counts_text(evidence.recorded.counts))
    if evidence.run_here:
        parts.append("run here")
    return ", ".join(parts)


def _for_reading(cards: list[Card], catalog: Catalog) -> str:
    """Two lines a paper, no wider than the terminal: slug and title; year, arXiv id, the verdict and what it gives."""
    lines: list[str] = []
    for wing in WINGS:
        members = [card for card in cards if card.wing == wing]
        if not members:
            continue
        lines.append(paint(f"{wing} ({len(members)})", "bold", "cyan"))
        left = max(len("2024 2403.00409"), *(len(card.slug) for card in members))
        right = width() - left - 4
        for card in members:
            mark = paint("✓", "green") if card.usable else " "
            lines.append(f"{mark} {paint(card.slug.ljust(left), 'bold')}  {cut(card.title, right)}")
            verdict = experiment_text(catalog.evidence(card.slug))
            verdict = cut(f"{verdict} · ", right) if verdict else ""
            gives = paint(verdict, "yellow") + paint(cut(card.summary, right - len(verdict)), "dim")
            lines.append(f"  {paint(f'{card.year} {card.arxiv}'.ljust(left), 'dim')}  {gives}")
        lines.append("")
    total = len(catalog.cards())
    shown = f"{total} papers" if len(cards) == total else f"{len(cards)} of {total} papers"
    usable = sum(card.usable for card in cards)
    count = f"{shown}, {usable} usable here{' (✓)' if usable else ''}; more: paperworks show SLUG"
    lines.append(paragraph(count, indent=0))
    return "\n".join(lines)


def _for_pipes(cards: list[Card], catalog: Catalog) -> str:
    """One line a paper, columns aligned, nothing cut, so that grep and awk find what they look for."""
    rows = [("slug", "wing", "year", "arXiv", "usable", "experiment", "title: what it gives")]
    for card in cards:
        experiment = experiment_text(catalog.evidence(card.slug)) or "no"
        usable = "yes" if card.usable else "no"
        texts = f"{card.title}: {card.summary}"
        rows.append((card.slug, card.wing, str(card.year), card.arxiv or "-", usable, experiment, texts))
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    return "\n".join("  ".join([*(cell.ljust(size) for cell, size in zip(row, widths)), row[6]]) for row in rows)
