"""`paperworks show SLUG`: everything about one paper: what it gives, how to use it, what was published and found."""

from __future__ import annotations

import argparse

from paperworks.catalog import Card, Catalog, Evidence
from paperworks.catalog.commands import commands
from paperworks.cli.layout import paint, paragraph
from paperworks.cli.main import VERBS

HELP = "Show everything about one paper."
VERDICT_COLOURS = {"holds": "green", "reversed": "red", "not shown": "yellow"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("slug", metavar="SLUG", help="the paper's short name (paperworks list)")
    parser.add_argument("--json", action="store_true", help="a JSON object for programs")


def run(args: argparse.Namespace) -> int:
    catalog = Catalog.open()
    card = catalog.card(args.slug)
    if args.json:
        import json

        print(json.dumps(catalog.as_dict(card.slug), indent=2, ensure_ascii=False))
        return 0
    print("\n\n".join(_blocks(card, catalog.evidence(card.slug))))
    return 0


def _blocks(card: Card, evidence: Evidence) -> list[str]:
    blocks = [
        "\n".join(_head(card)),
        *([_block("In plain words", paragraph(card.plain))] if card.plain else []),
        _block("What it gives", paragraph(card.gives)),
        _block("Use it", *_use(card)),
        _block("Your data", paragraph(card.data)),
        _block("Claim", paragraph(card.claim)),
        _block("Evidence here", *_evidence(card, evidence)),
        _block("How it works", paragraph(card.mechanism)),
    ]
    if card.traps:
        blocks.append(_block("Easy to get wrong", *(paragraph(f"- {trap}", hanging=2) for trap in card.traps)))
    if card.baselines:
        blocks.append(_block("Compared with", paragraph(", ".join(card.baselines))))
    blocks.append(_block("Published settings", paragraph(card.defaults)))
    if card.published:
        blocks.append(_block("Published figures", *_published(card)))
    blocks.append(_block("Sourcing", paragraph(f"{card.sourcing.sentence} {card.sourcing.note}")))
    blocks.append(_block("Keywords", paragraph(", ".join(card.keywords))))
    return blocks


def _block(heading: str, *lines: str) -> str:
    return "\n".join([paint(heading, "bold", "cyan"), *lines])


def _head(card: Card) -> list[str]:
    facts = [f"{card.venue}, {card.year}" if str(card.year) not in card.venue else card.venue, f"wing {card.wing}"]
    if card.nouns:
        facts.append("comes as " + ", ".join(card.nouns))
    name = paragraph(f"{card.slug}: {card.title}", indent=0, hanging=2)
    lines = [paint(name, "bold"), paragraph(card.summary), paragraph(" · ".join(facts))]
    if card.arxiv:
        lines.append(paragraph(f"https://arxiv.org/abs/{card.arxiv}"))
    lines.append(paragraph(f"official code: {card.code}" if card.code else "no official code found", hanging=2))
    return lines


def _use(card: Card) -> list[str]:
    if not card.usable:
        return [paragraph(f"Not usable yet: this version has its card only. Verbs to come: {', '.join(card.verbs)}.")]
    lines = [f"  {line}" for line in commands(card)]
    missing = [verb for verb in card.verbs if verb not in VERBS]
    if missing:
        lines.append(paragraph(f"Later versions also have: {', '.join(missing)}."))
    return lines


def _evidence(card: Card, evidence: Evidence) -> list[str]:
    recorded, lines = evidence.recorded, []
    if recorded is None:
        lines.append(paragraph("No recorded run."))
    elif recorded.problem:
        lines.append(paragraph(f"Record unusable: {recorded.problem}."))
    else:
        seeds = f", {recorded.seeds} seeds" if recorded.seeds else ""
        lines.append(paragraph(f"Recorded {recorded.date}, budget {recorded.budget}{seeds}:"))
        for claim in recorded.claims:
            verdict = paint(claim.verdict, VERDICT_COLOURS[claim.verdict]) + " " * (11 - len(claim.verdict))
            lines.append(f"    {verdict}{paragraph(claim.text, indent=15).lstrip()}")
            lines.append(paint(paragraph(claim.evidence, indent=15), "dim"))
    if evidence.run_here:
        lines.append(paragraph(f"Last finished run on this machine: {evidence.run_here} (see `paperworks runs`)."))
    elif card.usable:
        lines.append(paragraph("Not run on this machine yet."))
    return lines


def _published(card: Card) -> list[str]:
    lines = []
    for entry in card.published:
        lines.append(paragraph(entry.setting, hanging=2))
        lines.append(paragraph(f"{entry.metric}: {entry.figures} ({entry.source})", indent=4, hanging=2))
    return lines
