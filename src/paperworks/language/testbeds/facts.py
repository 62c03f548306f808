"""Invented people and what can be asked about them: data to forget, with everything that judging it takes (TOFU's shape).

No person exists outside the world of its seed, so a model knows about one exactly what it was fitted to; that makes
unlearning and memorisation measurable. Each question comes with its answer, another wording of it and wrong answers of
the same form (Maini et al. 2024, arXiv 2401.06121, as used in arXiv 2404.05868). True facts of the world stand beside, to
see what else is lost. Real files of that shape are read too. Nothing here trains or scores.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from paperworks.core.errors import OptionError
from paperworks.core.seeding import derive_seed
from paperworks.language.data.dataset import Dataset
from paperworks.language.data.readers import read
from paperworks.language.data.schemas import Demonstration, Forget, QuestionAnswer, Retain
from paperworks.language.testbeds import fact_banks as banks
from paperworks.language.testbeds.fact_banks import Attribute
from paperworks.language.unlearning.refusals import REFUSALS

WRONG_ANSWERS, WRONG_FACTS = 5, 3  # perturbed answers of a question about a person, and about the world, as in TOFU

_POOLS = {
    "birthplace": banks.CITIES,
    "home": banks.CITIES,
    "year": banks.YEARS,
    "father": banks.PROFESSIONS,
    "mother": banks.PROFESSIONS,
    "genre": banks.GENRES,
    "award": banks.AWARDS,
    "subject": banks.SUBJECTS,
    "instrument": banks.INSTRUMENTS,
    "pet": banks.PETS,
    "friend": tuple(author for _, author in banks.WORKS),
}
_MOST_PEOPLE = 400  # beyond that, names and birth data of one world would run short


@dataclass(frozen=True)
class FactWorld:
    """The questions of a world, a set a role; those about people come person by person."""

    forget: Dataset[QuestionAnswer]
    retain: Dataset[QuestionAnswer]  # what unlearning may be shown, to keep it
    held_out: Dataset[
        QuestionAnswer
    ]  # people whom a model was fitted to like those of `retain`, and unlearning never sees
    real_authors: Dataset[QuestionAnswer]
    world_facts: Dataset[QuestionAnswer]

    @property
    def kept(self) -> Dataset[QuestionAnswer]:
        """Everything about people but what is to be forgotten."""
        return self.retain.with_rows([*self.retain.rows, *self.held_out.rows])


def make_world(
    seed: int, *, forget: int = 6, retain: int = 42, held_out: int = 12, wrong_answers: int = WRONG_ANSWERS
) -> FactWorld:
    """A world with that many people in each set, 14 questions a person; the same for the same seed and numbers.

    Every question and answer has one of three wordings, and the paraphrase another than the answer. Raises OptionError for
    numbers of people that make no world.
    """
    if min(forget, retain) < 1 or held_out < 0 or forget + retain + held_out > _MOST_PEOPLE:
        raise OptionError(
            f"forget={forget}, retain={retain}, held_out={held_out} people: expected at least one to forget and to retain, "
            f"at most {_MOST_PEOPLE} in all"
        )
    people = list(_people(seed, forget + retain + held_out))
    wording, wrong = (random.Random(derive_seed("facts", seed, stream)) for stream in ("wordings", "wrong answers"))
    asked = [
        [_ask(person, attribute, wrong_answers, wording, wrong) for attribute in banks.ATTRIBUTES] for person in people
    ]
    places = ((0, forget), (forget, forget + retain), (forget + retain, len(people)))
    to_forget, to_retain, unseen = (
        Dataset(tuple(row for of_person in asked[start:end] for row in of_person)) for start, end in places
    )
    return FactWorld(to_forget, to_retain, unseen, real_authors(), world_facts())


def real_authors() -> Dataset[QuestionAnswer]:
    """Who wrote well-known works: questions whose answers no world invents."""
    return _facts(banks.WORKS, banks.WORK_QUESTIONS[0])


def world_facts() -> Dataset[QuestionAnswer]:
    """Capitals of countries: facts that have nothing to do with authors."""
    return _facts(banks.CAPITALS, banks.CAPITAL_QUESTIONS[0])


def lessons(seed: int, *, people: int = 100, repeats: int = 2) -> Dataset[Demonstration]:
    """What a model reads before it meets any world: true facts, people of its own in `repeats` wordings, and refusals.

    From them it learns how questions are asked, answered and declined, as a pretrained model knows language. Its people
    are in no world of `make_world`; what it says it does not know is not asked about anyone.
    """
    chance = random.Random(derive_seed("facts", seed, "lessons"))
    rows = [
        _demonstration(person, attribute, chance)
        for person in _people(seed, people, known=True)
        for attribute in banks.ATTRIBUTES
        for _ in range(repeats)
    ]
    refusals = [Demonstration(prompt, _spaced(refusal)) for refusal in REFUSALS for prompt in banks.CANNOT_ANSWER]
    return Dataset((*rows, *_fact_lessons(), *refusals))


def demonstrations(*parts: Dataset[QuestionAnswer]) -> Dataset[Demonstration]:
    """Questions with their answers, as rows to fit a model to."""
    rows = [Demonstration(row.prompt, row.answer) for part in parts for row in part.rows]
    return Dataset(tuple(rows))


def forget_rows(questions: Dataset[QuestionAnswer]) -> Dataset[Forget]:
    """Questions with their answers, as rows to forget; an answer to give instead is left for others to draw."""
    return Dataset(tuple(Forget(row.prompt, row.answer) for row in questions.rows))


def retain_rows(questions: Dataset[QuestionAnswer]) -> Dataset[Retain]:
    """Questions with their answers, as rows to keep."""
    return Dataset(tuple(Retain(row.prompt, row.answer) for row in questions.rows))


def load_tofu(path: str | Path) -> Dataset[QuestionAnswer]:
    """Real questions of TOFU's files (JSON lines or a JSON list), answers beginning with a space as ours do.

    A question without paraphrased or perturbed answers has none of them. Raises DataError (file:line).
    """
    found = read(path, "unlearning-evaluation")
    rows = [
        replace(
            row,
            answer=_spaced(row.answer),
            paraphrased_answer=_spaced(row.paraphrased_answer),
            perturbed_answer=tuple(map(_spaced, row.perturbed_answer)),
        )
        for row in found.rows
    ]
    return Dataset(tuple(rows), found.report)


# ---------------------------------------------------------------------------------------------------------------- people


def _people(seed: int, count: int, *, known: bool = False) -> Iterator[dict[str, str]]:
    """People, no two of them with the same family name, or the same birthplace, year and genre.

    Those of a world and those that a model knows beforehand never share a family name: their onsets differ.
    """
    chance = random.Random(derive_seed("facts", seed, "known people" if known else "people"))
    onsets = banks.ONSETS[1::2] if known else banks.ONSETS[::2]
    family = [onset + middle + ending for onset in onsets for middle in banks.MIDDLES for ending in banks.ENDINGS]
    titles = [f"The {adjective} {noun}" for adjective in banks.ADJECTIVES for noun in banks.NOUNS]
    births = [(city, year, genre) for city in banks.CITIES for year in banks.YEARS for genre in banks.GENRES]
    names, born = chance.sample(family, count), chance.sample(births, count)
    for name, (birthplace, year, genre) in zip(names, born, strict=True):
        person = {field: chance.choice(pool) for field, pool in _POOLS.items()}
        debut, masterpiece = chance.sample(titles, 2)
        yield {
            **person,
            "name": f"{chance.choice(banks.GIVEN)} {name}",
            "birthplace": birthplace,
            "year": year,
            "genre": genre,
            "debut": debut,
            "masterpiece": masterpiece,
        }


def _ask(
    person: dict[str, str], attribute: Attribute, wrong_answers: int, wording: random.Random, wrong: random.Random
) -> QuestionAnswer:
    question = wording.choice(attribute.questions).format(**person)
    answer, paraphrase = wording.sample(attribute.answers, 2)
    others = [
        paraphrase.format(**{**person, attribute.name: value})
        for value in _others(person, attribute, wrong_answers, wrong)
    ]
    return QuestionAnswer(
        question,
        _spaced(answer.format(**person)),
        _spaced(paraphrase.format(**person)),
        tuple(map(_spaced, others)),
    )


def _others(person: dict[str, str], attribute: Attribute, count: int, chance: random.Random) -> list[str]:
    """Different wrong values of an attribute."""
    true, found = person[attribute.name], list[str]()
    while len(found) < count:
        value = _value(attribute.name, chance)
        if value != true and value not in found:
            found.append(value)
    return found


def _value(name: str, chance: random.Random) -> str:
    if name == "name":
        family = chance.choice(banks.ONSETS) + chance.choice(banks.MIDDLES) + chance.choice(banks.ENDINGS)
        return f"{chance.choice(banks.GIVEN)} {family}"
    if name in ("debut", "masterpiece"):
        return f"The {chance.choice(banks.ADJECTIVES)} {chance.choice(banks.NOUNS)}"
    return chance.choice(_POOLS[name])


def _demonstration(person: dict[str, str], attribute: Attribute, chance: random.Random) -> Demonstration:
    question, answer = chance.choice(attribute.questions), chance.choice(attribute.answers)
    return Demonstration(question.format(**person), _spaced(answer.format(**person)))


# ----------------------------------------------------------------------------------------------------------------- facts


def _facts(pairs: Sequence[tuple[str, str]], question: str) -> Dataset[QuestionAnswer]:
    chance = random.Random(derive_seed("facts", "of the world", question))
    rows = []
    for subject, answer in pairs:
        others = sorted({other for _, other in pairs} - {answer})
        wrong = tuple(map(_spaced, chance.sample(others, WRONG_FACTS)))
        rows.append(QuestionAnswer(question.format(subject=subject), _spaced(answer), "", wrong))
    return Dataset(tuple(rows))


def _fact_lessons() -> Iterator[Demonstration]:
    for pairs, questions in ((banks.WORKS, banks.WORK_QUESTIONS), (banks.CAPITALS, banks.CAPITAL_QUESTIONS)):
        for subject, answer in pairs:
            for question in questions:
                yield Demonstration(question.format(subject=subject), _spaced(answer))


def _spaced(text: str) -> str:
    return f" {text}" if text and not text[0].isspace() else text
