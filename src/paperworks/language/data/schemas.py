"""The kinds of training rows, each a frozen dataclass that says how its fields are read.

A new kind (trajectories, say) joins by one decorated dataclass: the readers look only at the fields' declarations.
Nothing here knows files or formats.
"""
# ruff: noqa: RUF009 -- `column` is `dataclasses.field` with our metadata; its result is not shared between rows.

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar, Literal, NamedTuple, TypedDict, TypeVar

from paperworks.core.errors import OptionError, did_you_mean
from paperworks.language.data.problems import BadRow


class Message(TypedDict):
    """One turn of a conversation; role is `system`, `user`, `assistant` or another name the chat template knows."""

    role: str
    content: str


Text = str | tuple[Message, ...]
"""Plain text, or messages.

A prompt is a str (plain text, continued as it stands) or messages (to be laid out by the model's chat template).
A response is nearly always a str: the continuation of a plain prompt, or the content of the assistant's turn after a
prompt of messages. Only a response of several turns is messages.
"""

Kind = Literal["text", "texts", "weight", "boolean", "labels", "number", "numbers", "graded", "scores", "rest"]
"""How a field is read: a Text; a tuple of str; a float ≥ 0; a bool; a tuple of 0/1 labels; a finite float; a mapping of
names to finite floats; a tuple of Graded; a tuple of finite floats; all else that the record has, as JSON values."""


class Graded(NamedTuple):
    """A version of a response and its degree: 0 is the response itself, more is worse."""

    text: str
    degree: int


@dataclass(frozen=True)
class Where:
    """The place a row came from: file (or data set) and line, or record number where there are no lines (1-based)."""

    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def column(
    kind: Kind,
    *aliases: str,
    default: Any = dataclasses.MISSING,
    factory: Any = dataclasses.MISSING,
) -> Any:
    """A field of a schema: how it is read, other names it may have in a file, its default if it may be missing."""
    metadata = {"kind": kind, "aliases": aliases}
    if factory is not dataclasses.MISSING:
        return field(default_factory=factory, metadata=metadata)
    return field(default=default, metadata=metadata)


def _where() -> Any:
    return dataclasses.field(default=Where(), repr=False, compare=False)


SCHEMAS: dict[str, type] = {}
RowType = TypeVar("RowType")


def schema(name: str) -> Callable[[type[RowType]], type[RowType]]:
    """Registers a row type under the name that `--schema` and `read` know it by."""

    def register(row_type: type[RowType]) -> type[RowType]:
        SCHEMAS[name] = row_type
        return row_type

    return register


@schema("preference")
@dataclass(frozen=True)
class Preference:
    """A prompt and two responses, of which `chosen` was preferred."""

    prompt: Text = column("text")
    chosen: Text = column("text")
    rejected: Text = column("text")
    weight: float = column("weight", default=1.0)
    base: tuple[str, ...] = column("texts", default=())  # responses of a baseline policy (RPO with base=file)
    annotator_labels: tuple[int, ...] = column("labels", default=())  # per annotator: 1 agrees that chosen is better
    margin: float | None = column("number", default=None)  # how much better chosen is, for reward models
    degrees: tuple[Graded, ...] = column("graded", default=())  # graded versions of chosen, in place of built ones
    explored: bool | None = column("boolean", default=None)  # whether chosen, or rejected, is the fixed sampler's (XPO)
    where: Where = _where()

    def check(self) -> None:
        """Raises BadRow for a pair that can teach nothing."""
        if self.chosen == self.rejected:
            raise BadRow("identical pair", "chosen equals rejected; expected two different responses")


@schema("feedback")
@dataclass(frozen=True)
class Feedback:
    """A prompt and one response, judged desirable or not (unpaired feedback, as KTO takes it)."""

    prompt: Text = column("text")
    response: Text = column("text", "completion")
    desirable: bool = column("boolean", "label")
    weight: float = column("weight", default=1.0)
    degrees: tuple[Graded, ...] = column("graded", default=())  # graded versions of a desirable response
    where: Where = _where()


@schema("demonstration")
@dataclass(frozen=True)
class Demonstration:
    """A prompt and a response to imitate."""

    prompt: Text = column("text")
    response: Text = column("text", "completion")
    weight: float = column("weight", default=1.0)
    where: Where = _where()


@schema("scored")
@dataclass(frozen=True)
class Scored:
    """A prompt and a response with a reward, or several by name (summed with weights by who uses them)."""

    prompt: Text = column("text")
    response: Text = column("text", "completion")
    reward: float | None = column("number", "score", default=None)
    rewards: Mapping[str, float] = column("numbers", "scores", factory=dict)
    weight: float = column("weight", default=1.0)
    advantage: float | None = None  # set by objectives that estimate one; never read from data
    where: Where = _where()

    def check(self) -> None:
        """Raises BadRow for a row without any reward."""
        if self.reward is None and not self.rewards:
            raise BadRow("missing field", "missing; expected a number, or `rewards` with numbers by name", "reward")


@schema("scored-group")
@dataclass(frozen=True)
class ScoredGroup:
    """A prompt and several responses to it, each with a score."""

    prompt: Text = column("text")
    responses: tuple[str, ...] = column("texts", "completions")
    scores: tuple[float, ...] = column("scores", "rewards")
    weight: float = column("weight", default=1.0)
    where: Where = _where()

    @property
    def response(self) -> tuple[str, ...]:
        """The responses under the name of their role."""
        return self.responses

    @property
    def reward(self) -> tuple[float, ...]:
        """The scores under the name that objectives read them by."""
        return self.scores

    def check(self) -> None:
        """Raises BadRow for a response with none to compare it with, another count of scores, or one that is blank."""
        if len(self.responses) < 2:
            raise BadRow("one response", f"expected 2 or more; found {len(self.responses)}", "responses")
        if len(self.scores) != len(self.responses):
            what = f"expected {len(self.responses)}, one a response; found {len(self.scores)}"
            raise BadRow("different lengths", what, "scores")
        for number, text in enumerate(self.responses, start=1):
            if not text.strip():
                raise BadRow("empty field", f"response {number} is empty; expected text", "responses")


@schema("forget")
@dataclass(frozen=True)
class Forget:
    """A prompt whose answer a model is to forget, and what it may say in its place."""

    prompt: Text = column("text", "question")
    forget: Text = column("text", "response", "answer", "completion")
    alternative: Text = column("text", "idk", default="")
    weight: float = column("weight", default=1.0)
    where: Where = _where()


@schema("retain")
@dataclass(frozen=True)
class Retain:
    """A prompt and an answer to keep. One is drawn for each row to forget of every step."""

    is_companion: ClassVar[bool] = True

    prompt: Text = column("text", "question")
    retain: Text = column("text", "response", "answer", "completion")
    weight: float = column("weight", default=1.0)
    where: Where = _where()


@schema("unlearning-evaluation")
@dataclass(frozen=True)
class QuestionAnswer:
    """A question with its answer, another wording of it, and answers of the same form that are wrong (TOFU's rows)."""

    prompt: Text = column("text", "question")
    answer: Text = column("text", "response", "completion")
    paraphrased_answer: Text = column("text", default="")
    perturbed_answer: tuple[str, ...] = column("texts", default=())
    where: Where = _where()


@schema("prompt")
@dataclass(frozen=True)
class PromptRow:
    """A prompt alone, to be answered by a policy; and what else its record has, for rewards that compare with it."""

    prompt: Text = column("text")
    fields: Mapping[str, Any] = dataclasses.field(
        default_factory=dict, compare=False, repr=False, metadata={"kind": "rest", "aliases": ()}
    )
    where: Where = _where()


@dataclass(frozen=True)
class Column:
    """A field of a schema, as the readers see it."""

    name: str
    kind: Kind
    aliases: tuple[str, ...]
    required: bool


def columns_of(row_type: type) -> tuple[Column, ...]:
    """The fields of a row type that are read from data, in order."""
    return _columns_of(row_type)


@cache
def _columns_of(row_type: type) -> tuple[Column, ...]:
    return tuple(
        Column(
            each.name,
            each.metadata["kind"],
            each.metadata["aliases"],
            each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING,
        )
        for each in dataclasses.fields(row_type)
        if "kind" in each.metadata
    )


def schema_of(name_or_type: str | type) -> tuple[str, type]:
    """The name and the row type of a schema given either way. Raises OptionError for an unknown one."""
    if isinstance(name_or_type, str):
        if name_or_type not in SCHEMAS:
            raise OptionError(f"unknown schema {name_or_type!r}{did_you_mean(name_or_type, SCHEMAS)}")
        return name_or_type, SCHEMAS[name_or_type]
    for name, row_type in SCHEMAS.items():
        if row_type is name_or_type:
            return name, row_type
    raise OptionError(f"{name_or_type.__name__} is not a schema (known: {', '.join(sorted(SCHEMAS))})")
