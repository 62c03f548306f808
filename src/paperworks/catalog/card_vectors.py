"""Writes the shipped vectors of the cards anew: `python -m paperworks.catalog.card_vectors` (`make docs` does).

Only for a checkout in which cards were changed; search by meaning reads the vectors and never writes them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from paperworks.catalog.card import Card
from paperworks.catalog.index import Catalog
from paperworks.catalog.meaning import INSTALL, VECTORS, Encoder, Meaning, digest, is_installed, passages, read_vectors
from paperworks.core.errors import PaperworksError
from paperworks.core.files import write_atomic


def write_vectors(cards: Iterable[Card], path: Path = VECTORS) -> list[str]:
    """Encode the cards whose text changed and write the file anew. Returns the slugs whose vectors changed or went.

    Other cards keep the vectors they have, so that the same cards give the same bytes. Raises ModelError where the encoder
    is not installed and one is needed.
    """
    cards = list(cards)
    vectors, digests = read_vectors(path) if path.is_file() else ({}, {})
    due = [card for card in cards if card.slug not in vectors or digests.get(card.slug) != digest(card)]
    gone = sorted(set(vectors) - {card.slug for card in cards})
    if not due and not gone:
        return []
    encoder = Encoder()
    made = {card.slug: encoder.encode(passages(card)).astype(np.float16) for card in due}
    kept = {card.slug: made[card.slug] if card.slug in made else vectors[card.slug] for card in cards}
    # One entry of the metadata for all digests: safetensors writes several in no particular order.
    described = {"digests": json.dumps({card.slug: digest(card) for card in cards}, sort_keys=True)}
    write_atomic(path, save(kept, described))
    return [*made, *gone]


def main() -> int:
    """Bring the vectors up to date, where the encoder is installed; else say which are not."""
    try:
        cards = Catalog.open().cards()
        if is_installed():
            changed = write_vectors(cards)
            print(f"wrote the vectors of {', '.join(changed)}" if changed else "vectors are up to date")
        elif stale := Meaning.open(cards).stale:
            print(f"vectors of {', '.join(stale)} are out of date; to write them: {INSTALL}", file=sys.stderr)
    except PaperworksError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
