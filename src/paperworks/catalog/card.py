"""A card: what one paper gives a user, read from one TOML file and checked.

A card says what the paper is. Whether it works here (`usable`, `experiment`) is looked up each time and never written
down in it. This file knows nothing of the index or of the command line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from paperworks.catalog import evidence
from paperworks.core.errors import DataError, did_you_mean

WINGS = ("language", "control", "incontext", "layers", "vision", "text", "formal", "audit")
VERBS = ("run", "train", "compare", "generate", "evaluate", "select", "extract", "audit", "solve")
NOUNS = ("policy", "source", "reward", "objective", "value", "decoder")
SOURCING_KINDS = {
    "published": "The method is the published one.",
    "mixed": "The core is published; some parts are reconstructed or our decision.",
    "reconstruction": "Core parts are our reconstruction.",
}
TOPICS = (
    "preferences",
    "learning from rewards",
    "reward models",
    "reasoning and search",
    "decoding",
    "unlearning",
    "data selection",
    "offline reinforcement learning",
    "online and hybrid reinforcement learning",
    "safe and robust reinforcement learning",
    "several objectives",
    "in-context learning",
    "architectures",
    "generalisation and open sets",
    "memorisation and copying",
    "evaluation and auditing",
    "extraction and retrieval",
    "planning and programs",
)
SUMMARY_LIMIT = 140  # characters: one line of `paperworks list` on a wide terminal


@dataclass(frozen=True)
class Published:
    """Figures that the paper, or who reproduced it, reports: never without their setting."""

    setting: str
    metric: str
    figures: str
    source: str


@dataclass(frozen=True)
class Sourcing:
    """Where the method comes from: as published, reconstructed where the text could not be had, or mixed."""

    kind: str
    note: str

    @property
    def sentence(self) -> str:
        """What the kind means, in a sentence."""
        return SOURCING_KINDS[self.kind]


@dataclass(frozen=True)
class Equation:
    """A formula of the method: TeX, what its symbols mean (TeX between $…$), and where the paper has it."""

    name: str
    tex: str
    where: str = ""
    source: str = ""


@dataclass(frozen=True)
class Card:
    """One paper as a user meets it. Texts are single paragraphs; `arxiv` and `code` are "" where there is none."""

    slug: str
    title: str
    arxiv: str
    year: int  # of the first public version
    venue: str
    wing: str
    code: str  # official code and its licence
    summary: str  # what it gives a user, at most 140 characters
    gives: str
    verbs: tuple[str, ...]  # the command-line verbs that apply it
    nouns: tuple[str, ...]
    keywords: tuple[str, ...]
    mechanism: str
    claim: str
    baselines: tuple[str, ...]
    defaults: str  # published hyperparameters
    data: str  # what a user's rows look like
    sourcing: Sourcing
    published: tuple[Published, ...]
    uses: tuple[str, ...] = ()  # command lines that apply it, where those of its verbs are not the usual ones
    topic: str = ""  # one of TOPICS: what a reader of papers would file it under
    plain: str = ""  # what it is about in plain words, for readers new to the subject
    traps: tuple[str, ...] = ()  # what is easy to get wrong
    equations: tuple[Equation, ...] = ()  # in the order in which they are read

    @property
    def usable(self) -> bool:
        """Whether the paper's module is part of this installation."""
        return evidence.is_usable(self.slug)

    @property
    def experiment(self) -> evidence.Evidence:
        """What is known of the paper's experiment: recorded in `results/`, run on this machine, or neither."""
        return evidence.evidence_of(self.slug)

    def as_dict(self) -> dict[str, Any]:
        """The card as plain lists, dictionaries, numbers and strings, fit for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Card:
        """The card that `as_dict` wrote, without checks (the index stores cards that were checked before)."""
        lists = {name: tuple(values[name]) for name in ("verbs", "nouns", "keywords", "baselines", "uses", "traps")}
        tables: dict[str, Any] = {
            "sourcing": Sourcing(**values["sourcing"]),
            "published": tuple(Published(**entry) for entry in values["published"]),
            "equations": tuple(Equation(**entry) for entry in values["equations"]),
        }
        return cls(**{**values, **lists, **tables})


def read_card(path: Path) -> Card:
    """Read and check one card file.

    Raises DataError (file, line or field, what was expected) for anything that is not a whole card, and where the
    file's name is not the card's slug.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", file=path) from None
    except UnicodeDecodeError as error:
        raise DataError(f"is not UTF-8 text (byte {error.start})", file=path) from None
    card = parse_card(text, file=path.name)
    if card.slug != path.stem:
        raise DataError(f"is {card.slug!r}, but the file is named {path.stem!r}", file=path.name, field="slug")
    return card


def parse_card(text: str, *, file: str = "card") -> Card:
    """Check the text of one card file; `file` is the name used in errors. Raises DataError as `read_card` does."""
    import tomllib

    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        raise DataError(f"not valid TOML: {error}", file=file, line=int(line[1]) if line else None) from None
    table = _Table(values, file)
    table.allow_only(field.name for field in fields(Card))
    card = Card(
        slug=table.text("slug", pattern=r"[a-z0-9]+(-[a-z0-9]+)*", expected="lower-case words joined by hyphens"),
        title=table.text("title"),
        arxiv=table.text("arxiv", pattern=r"(\d{4}\.\d{4,5})?", expected='an arXiv id as "2404.05868", or ""'),
        year=table.year("year"),
        venue=table.text("venue"),
        wing=table.text("wing", among=WINGS),
        code=table.text("code", may_be_empty=True),
        summary=table.text("summary", limit=SUMMARY_LIMIT),
        gives=table.text("gives"),
        verbs=table.words("verbs", among=VERBS),
        nouns=table.words("nouns", among=NOUNS, may_be_empty=True),
        keywords=table.words("keywords"),
        mechanism=table.text("mechanism"),
        claim=table.text("claim"),
        baselines=table.words("baselines", may_be_empty=True),
        defaults=table.text("defaults"),
        data=table.text("data"),
        sourcing=_sourcing(table),
        published=_published(table),
        uses=table.words("uses", may_be_empty=True) if "uses" in values else (),
        topic=table.text("topic", among=TOPICS) if "topic" in values else "",
        plain=table.text("plain") if "plain" in values else "",
        traps=table.words("traps") if "traps" in values else (),
        equations=_equations(table),
    )
    if card.arxiv and card.year > 2000 + int(card.arxiv[:2]):
        raise DataError(f"{card.year} is after arXiv {card.arxiv} was first public", file=file, field="year")
    if "run" not in card.verbs:
        raise DataError("lacks 'run': every paper has an experiment", file=file, field="verbs")
    return card


def _sourcing(card: _Table) -> Sourcing:
    table = card.table("sourcing")
    table.allow_only(field.name for field in fields(Sourcing))
    return Sourcing(kind=table.text("kind", among=tuple(SOURCING_KINDS)), note=table.text("note"))


def _published(card: _Table) -> tuple[Published, ...]:
    names = [field.name for field in fields(Published)]
    entries = []
    for table in card.tables("published"):
        table.allow_only(names)
        entries.append(Published(**{name: table.text(name) for name in names}))
    return tuple(entries)


def _equations(card: _Table) -> tuple[Equation, ...]:
    entries = []
    for table in card.tables("equations"):
        table.allow_only(field.name for field in fields(Equation))
        optional = {name: table.text(name) for name in ("where", "source") if table.has(name)}
        entries.append(Equation(name=table.text("name"), tex=table.text("tex"), **optional))
    return tuple(entries)


class _Table:
    """One TOML table, and where it stands, so that each check can name the file and the field."""

    def __init__(self, values: Mapping[str, Any], file: str, prefix: str = "") -> None:
        self._values, self._file, self._prefix = values, file, prefix

    def allow_only(self, names: Iterable[str]) -> None:
        known = list(names)
        for name in self._values:
            if name not in known:
                raise self._wrong(name, f"is not a field of a card{did_you_mean(name, known)}")

    def has(self, name: str) -> bool:
        return name in self._values

    def text(
        self,
        name: str,
        *,
        may_be_empty: bool = False,
        limit: int | None = None,
        among: tuple[str, ...] = (),
        pattern: str = "",
        expected: str = "",
    ) -> str:
        value = self._get(name)
        if not isinstance(value, str):
            raise self._wrong(name, f"expected a string, got {value!r}")
        value = " ".join(value.split())
        if pattern and not re.fullmatch(pattern, value):
            raise self._wrong(name, f"expected {expected}, got {value!r}")
        if not value and not may_be_empty and not pattern:
            raise self._wrong(name, "is empty")
        if limit is not None and len(value) > limit:
            raise self._wrong(name, f"has {len(value)} characters; at most {limit} are allowed")
        if among and value not in among:
            raise self._wrong(name, f"{value!r} is unknown{did_you_mean(value, among)}")
        return value

    def words(self, name: str, *, among: tuple[str, ...] = (), may_be_empty: bool = False) -> tuple[str, ...]:
        value = self._get(name)
        if not isinstance(value, list) or not all(isinstance(word, str) and word.strip() for word in value):
            raise self._wrong(name, f"expected a list of non-empty strings, got {value!r}")
        words = tuple(" ".join(word.split()) for word in value)
        if not words and not may_be_empty:
            raise self._wrong(name, "is empty")
        for position, word in enumerate(words):
            if among and word not in among:
                raise self._wrong(name, f"{word!r} is unknown{did_you_mean(word, among)}")
            if word in words[:position]:
                raise self._wrong(name, f"has {word!r} twice")
        return words

    def year(self, name: str) -> int:
        value = self._get(name)
        if isinstance(value, bool) or not isinstance(value, int) or not 1950 <= value <= 2100:
            raise self._wrong(name, f"expected a year as a whole number, got {value!r}")
        return value

    def table(self, name: str) -> _Table:
        value = self._get(name)
        if not isinstance(value, dict):
            raise self._wrong(name, f"expected a table [{name}], got {value!r}")
        return _Table(value, self._file, f"{name}.")

    def tables(self, name: str) -> list[_Table]:
        value = self._values.get(name, [])
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            raise self._wrong(name, f"expected tables [[{name}]], got {value!r}")
        return [_Table(entry, self._file, f"{name}[{number}].") for number, entry in enumerate(value, start=1)]

    def _get(self, name: str) -> Any:
        if name not in self._values:
            raise self._wrong(name, "is missing")
        return self._values[name]

    def _wrong(self, name: str, what: str) -> DataError:
        return DataError(what, file=self._file, field=self._prefix + name)
