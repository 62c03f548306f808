"""`paperworks search WORDS`: papers found by words anywhere in their cards, best first, with the place that matched.

With `--meaning` also those that say it in other words. Only then is a model loaded.
"""

from __future__ import annotations

import argparse

from paperworks.catalog import Catalog, Found, Hit
from paperworks.cli.layout import cut, on_terminal, paint, width
from paperworks.core.errors import OptionError

HELP = "Find papers by words: in titles, keywords, mechanisms, claims, baselines. The last word may be a beginning."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="+", metavar="WORDS", help="what to look for")
    parser.add_argument(
        "--meaning", action="store_true",
        help='papers that say it in other words, too: whole sentences are welcome (needs pip install "paperworks[semantic]")',
    )  # fmt: skip
    parser.add_argument("--limit", type=int, default=10, metavar="N", help="show at most N papers (default: 10)")
    parser.add_argument("--json", action="store_true", help="a JSON object for programs")


def run(args: argparse.Namespace) -> int:
    if args.limit < 1:
        raise OptionError(f"--limit: expected a whole number of at least 1, got {args.limit}")
    words = " ".join(args.words)
    found = _by_meaning(words, args.limit) if args.meaning else Catalog.open().search(words, limit=args.limit)
    if args.json:
        import json

        print(json.dumps(_as_dict(found), indent=2, ensure_ascii=False))
    else:
        print(_for_reading(found, words))
    return 0


def _by_meaning(words: str, limit: int) -> Found:
    """The papers nearest in meaning, those with all the words moved up. Every paper is more or less near."""
    from paperworks.catalog.meaning import Encoder, Meaning, blend

    if not words.strip():
        return Found()
    catalog = Catalog.open()
    cards = catalog.cards()
    by_words = catalog.search(words, limit=len(cards))
    ranked = blend(by_words, Meaning.open(cards).rank(Encoder().encode([words])[0]))
    snippets = {hit.card.slug: hit.snippet for hit in by_words.hits}
    return Found(tuple(Hit(catalog.card(slug), score, snippets.get(slug, ())) for slug, score in ranked[:limit]))


def _as_dict(found: Found) -> dict[str, object]:
    hits = [
        {
            "slug": hit.card.slug,
            "title": hit.card.title,
            "year": hit.card.year,
            "wing": hit.card.wing,
            "summary": hit.card.summary,
            "usable": hit.card.usable,
            "score": round(hit.score, 3),
            "snippet": "".join(text for text, _ in hit.snippet),
        }
        for hit in found.hits
    ]
    return {"hits": hits, "complete": found.complete, "near": list(found.near)}


def _for_reading(found: Found, words: str) -> str:
    if not found.hits:
        near = f"; similar: {', '.join(found.near)}" if found.near else "; `paperworks list` shows all papers"
        return f"no paper has {words!r}{near}"
    lines = [] if found.complete else ["No paper has all these words; those with some of them:", ""]
    return "\n".join([*lines, *map(_hit, found.hits)])


def _hit(hit: Hit) -> str:
    """The paper, what it gives, and the text that matched; cut to the terminal's width, whole in a pipe."""
    card = hit.card
    columns = width() if on_terminal() else 10_000
    mark = paint("✓", "green") if card.usable else " "
    lines = [
        f"{mark} {paint(card.slug, 'bold')}  {cut(card.title, columns - len(card.slug) - 10)}  {card.year}",
        f"    {cut(card.summary, columns - 4)}",
    ]
    if hit.snippet:
        room, pieces = columns - 4, []
        for text, matched in hit.snippet:
            piece = cut(text, room)
            pieces.append(paint(piece, "bold", "yellow") if matched else paint(piece, "dim"))
            room -= len(piece)
            if room <= 0:
                break
        lines.append("    " + "".join(pieces))
    return "\n".join(lines)
