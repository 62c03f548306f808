"""Short generated reviews: text continuations whose sentiment an outside scorer can judge, and real text of that shape.

A prompt is an opening ("The acting in this film was"), a response finishes it (" very dull, but the music was
superb."). Two topics give prompts in and out of distribution; response styles give template families, with a check
whether a text belongs to one; the number of clauses gives lengths. Everything follows from the seed. Nothing here
scores or trains.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from paperworks.core.errors import DataError, OptionError, did_you_mean
from paperworks.core.seeding import derive_seed
from paperworks.language.data.labelled_sentences import read_labelled_sentences
from paperworks.language.data.schemas import Preference
from paperworks.language.rewards.reward import CheckedReward, Reward
from paperworks.language.testbeds import word_banks as words

RewardFunction = Callable[[list[str], list[str]], Any]  # prompts, responses -> a number a response; a Reward is one

TOPICS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "films": (
        (
            "The {noun} in this film was",
            "I thought the {noun} of the film was",
            "In a film of this sort the {noun} was",
        ),
        words.FILM_NOUNS,
    ),
    "hotels": (
        (
            "At this hotel the {noun} was",
            "On our last visit we found that the {noun} was",
            "To us the {noun} there was",
        ),
        words.HOTEL_NOUNS,
    ),
}
"""Openings and nouns of each topic. Adjectives and styles are the same for both, so that what is learnt can carry over."""

STYLES: dict[str, tuple[str, ...]] = {
    "plain": (" and the {noun} was {degree}{adjective}",),
    "contrast": (", but the {noun} was {degree}{adjective}", ", while the {noun} seemed {degree}{adjective}"),
    "personal": (", and I {verb} the {noun}", ", though we {verb} the {noun}"),
    "listing": (", with {adjective} {noun}", " next to the {degree}{adjective} {noun}"),
}
"""The clauses that may follow the first one, by style. A response keeps to one style."""

NEUTRAL_SHARE = 0.15  # slots that take a neutral word
MOST_CLAUSES = 12


class Review(NamedTuple):
    """A prompt and its continuation, which begins with a space and ends with a full stop."""

    prompt: str
    response: str


def prompts(topic: str = "films") -> tuple[str, ...]:
    """All openings of a topic: `films`, or `hotels` for prompts out of distribution. Raises OptionError for another."""
    openings, nouns = _topic(topic)
    return tuple(opening.format(noun=noun) for opening in openings for noun in nouns)


def generate_reviews(
    n: int,
    seed: int,
    *,
    topic: str = "films",
    styles: Sequence[str] = tuple(STYLES),
    clauses: tuple[int, int] = (1, 3),
) -> list[Review]:
    """`n` reviews; the first ones are the same whatever n is.

    Each has a leaning of its own, uniform from all bad to all good, so that sentiment spreads over the whole range; a
    style of `styles`; and a number of clauses in the range `clauses`, (1, 5) for lengths that vary widely. A single
    clause belongs to every style: ask for at least 2 where styles must be told apart. Raises OptionError for an
    unknown topic or style.
    """
    low, high = clauses
    if not 1 <= low <= high <= MOST_CLAUSES:
        raise OptionError(f"option clauses={clauses}: expected (fewest, most) between 1 and {MOST_CLAUSES}")
    continuations = [_style(style) for style in styles]
    if not continuations:
        raise OptionError("option styles is empty: expected at least one style")
    openings, nouns = _topic(topic)
    chance = random.Random(derive_seed("reviews", topic, seed))
    reviews = []
    for _ in range(n):
        leaning = chance.random()
        noun, *others = chance.sample(nouns, len(nouns))
        prompt = chance.choice(openings).format(noun=noun)
        shapes = chance.choice(continuations)
        response = _fill(" {degree}{adjective}", "", leaning, chance)
        for clause in range(chance.randint(low, high) - 1):
            response += _fill(chance.choice(shapes), others[clause % len(others)], leaning, chance)
        reviews.append(Review(prompt, response + "."))
    return reviews


def in_style(response: str, style: str) -> bool:
    """Whether a response could have come from this style: the first clause, then only the style's own, then a full stop."""
    return _pattern(style).fullmatch(response) is not None


def clauses_in(response: str) -> int:
    """How many clauses a response has, when it is in a style; 0 when it is in none."""
    for style in STYLES:
        if in_style(response, style):
            return 1 + len(re.findall(_either(_regex(shape) for shape in STYLES[style]), response))
    return 0


def leaning(of_prompts: list[str], responses: list[str]) -> list[float]:
    """Good minus bad words over all opinion words of a response, neutral ones included: in [-1, 1] at any length."""
    good, bad = {*words.GOOD, *words.GOOD_VERBS}, {*words.BAD, *words.BAD_VERBS}
    neutral = {*words.NEUTRAL, *words.NEUTRAL_VERBS}
    scores = []
    for response in responses:
        found = re.findall(r"[a-z]+", response)
        sides = [(word in good) - (word in bad) for word in found if word in good or word in bad or word in neutral]
        scores.append(sum(sides) / len(sides) if sides else 0.0)
    return scores


def penalised_outside(reward: RewardFunction, style: str, penalty: float = 1.0) -> Reward:
    """A reward lowered by `penalty` where the response is not in the style (text the preference data do not cover)."""
    _style(style)
    base = _checked(reward)

    def penalised(of_prompts: list[str], responses: list[str]) -> list[float]:
        scores = base(of_prompts, responses)
        return [score - penalty * (not in_style(response, style)) for score, response in zip(scores, responses)]

    return CheckedReward(f"{base.name} - {penalty:g} outside {style}", penalised)


def label_pairs(
    of_prompts: Sequence[str],
    responses_a: Sequence[str],
    responses_b: Sequence[str],
    reward: RewardFunction,
    *,
    noise: str = "none",
    scale: float = 1.0,
    length_bias: float = 0.0,
    seed: int = 0,
) -> list[Preference]:
    """Preference rows labelled by utility = scale * reward + length_bias * words.

    noise: `none` prefers the higher utility (a seeded coin where both are the same); `bt` prefers a with probability
    sigmoid(utility of a - utility of b). Pairs of identical responses teach nothing and are left out. For labels that
    are flipped at random pass the rows to data.flip_preferences. Raises OptionError for another noise or lists of
    unequal length, RewardError where the reward fails or does not give one finite number a response.
    """
    if noise not in ("none", "bt"):
        raise OptionError(f"option noise={noise}: expected none or bt{did_you_mean(noise, ('none', 'bt'))}")
    if not len(of_prompts) == len(responses_a) == len(responses_b):
        raise OptionError(
            f"{len(of_prompts)} prompts, {len(responses_a)} and {len(responses_b)} responses: expected as many of each"
        )
    judge = _checked(reward)
    utility = [
        [scale * score + length_bias * len(text.split()) for score, text in zip(judge(of_prompts, texts), texts)]
        for texts in (responses_a, responses_b)
    ]
    chance = random.Random(derive_seed("review labels", seed))
    rows = []
    for prompt, a, b, utility_a, utility_b in zip(of_prompts, responses_a, responses_b, *utility, strict=True):
        draw = chance.random()  # one draw a pair, whatever becomes of it, so that the other pairs keep theirs
        if a == b:
            continue
        probability = _sigmoid(utility_a - utility_b)
        if noise == "none":
            probability = 0.5 if utility_a == utility_b else float(utility_a > utility_b)
        chosen, rejected = (a, b) if draw < probability else (b, a)
        rows.append(Preference(prompt, chosen, rejected))
    return rows


def load_sst2(path: str | Path, *, prompt_words: int = 4, label: int | None = None) -> list[Review]:
    """Real sentences (SST-2's `sentence<TAB>label` lines) in the same shape: the first words are the prompt.

    Sentences with no more than `prompt_words` words have nothing to continue and are left out; with `label` 0
    (negative) or 1 (positive) only those are kept. Raises DataError where the file cannot be read or nothing is left.
    """
    if prompt_words < 1:
        raise OptionError(f"option prompt_words={prompt_words}: expected at least 1")
    reviews = []
    for sentence, of_class in read_labelled_sentences(path):
        text = sentence.split()
        if len(text) > prompt_words and label in (None, of_class):
            reviews.append(Review(" ".join(text[:prompt_words]), " " + " ".join(text[prompt_words:])))
    if not reviews:
        raise DataError(f"no sentence has more than prompt_words={prompt_words} words and that label", file=path)
    return reviews


def _topic(topic: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if topic not in TOPICS:
        raise OptionError(f"unknown topic {topic!r}{did_you_mean(topic, TOPICS)}")
    return TOPICS[topic]


def _style(style: str) -> tuple[str, ...]:
    if style not in STYLES:
        raise OptionError(f"unknown style {style!r}{did_you_mean(style, STYLES)}")
    return STYLES[style]


def _fill(shape: str, noun: str, leaning: float, chance: random.Random) -> str:
    def pick(good: Sequence[str], bad: Sequence[str], neutral: Sequence[str]) -> str:
        if chance.random() < NEUTRAL_SHARE:
            return chance.choice(neutral)
        return chance.choice(good if chance.random() < leaning else bad)

    degree = chance.choice(words.DEGREES)
    return shape.format(
        noun=noun,
        degree=f"{degree} " if degree else "",
        adjective=pick(words.GOOD, words.BAD, words.NEUTRAL),
        verb=pick(words.GOOD_VERBS, words.BAD_VERBS, words.NEUTRAL_VERBS),
    )


def _either(choices: Iterable[str]) -> str:
    return f"(?:{'|'.join(choices)})"


def _regex(shape: str) -> str:
    return (
        re.escape(shape)
        .replace(r"\{", "{")
        .replace(r"\}", "}")
        .format(
            noun=_either((*words.FILM_NOUNS, *words.HOTEL_NOUNS)),
            degree=f"{_either(f'{word} ' for word in words.DEGREES if word)}?",
            adjective=_either((*words.GOOD, *words.BAD, *words.NEUTRAL)),
            verb=_either((*words.GOOD_VERBS, *words.BAD_VERBS, *words.NEUTRAL_VERBS)),
        )
    )


def _pattern(style: str) -> re.Pattern[str]:
    following = _either(_regex(shape) for shape in _style(style))
    return re.compile(f"{_regex(' {degree}{adjective}')}{following}*\\.")


def _checked(reward: RewardFunction) -> CheckedReward:
    if isinstance(reward, CheckedReward):
        return reward
    name = getattr(reward, "name", None) or getattr(reward, "__name__", "reward")
    return CheckedReward(str(name), reward)


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))
