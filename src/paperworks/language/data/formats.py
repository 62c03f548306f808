"""The ways in which files lay out a row: `plain` strings, `chat` messages, Anthropic's `hh` dialogues, and others.

A format takes the named values of one row and gives the same row with its texts as `Text`: prompts split off, shared
turns found. It reads what is there and leaves what a schema requires to the readers. Nothing here opens files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from paperworks.core.errors import OptionError, did_you_mean
from paperworks.language.data import conversation, values
from paperworks.language.data.conversation import parse_messages, split_last, split_pair
from paperworks.language.data.problems import BadRow, shown
from paperworks.language.data.schemas import Text
from paperworks.language.data.scored_formats import lol
from paperworks.language.data.task_formats import gsm8k, humaneval, mbpp

Values = dict[str, Any]

_TEXTS = ("prompt", "chosen", "rejected", "response", "forget", "retain", "answer", "paraphrased_answer", "alternative")
_MAY_BE_EMPTY = ("alternative", "paraphrased_answer")  # as good as not given
_PAIR = ("chosen", "rejected")


def plain(row: Values) -> Values:
    """Every text is a string."""
    for field in _TEXTS:
        if isinstance(row.get(field), list):
            raise BadRow("wrong type", "expected a string; found a list (is it --format chat?)", field)
    return _filled(row)


def chat(row: Values) -> Values:
    """Texts are lists of {role, content}, or strings.

    `chosen` and `rejected` hold the answers after `prompt`, or whole conversations, whose shared beginning is then the
    prompt. `messages` is one whole conversation: its last answer is the response.
    """
    row = {
        field: parse_messages(value, field) if field in (*_TEXTS, "messages") and isinstance(value, list) else value
        for field, value in row.items()
    }
    if _both_whole(row):
        row["prompt"], row["chosen"], row["rejected"] = split_pair(row["chosen"], row["rejected"])
    elif "messages" in row and not any(field in row for field in _TEXTS):
        row = _with_conversation(row)
    else:
        row = _with_answers(row)
    return _filled(row)


def hh(row: Values) -> Values:
    """Texts are `\\n\\nHuman: …\\n\\nAssistant: …` dialogues, as in Anthropic's HH files.

    `chosen` and `rejected` are whole dialogues; or `prompt` is a dialogue and the answers are strings. An answer may be
    empty: Anthropic's files have such rows, and saying nothing is something a policy can do.
    """
    for field in _TEXTS:
        if field in row and not isinstance(row[field], str):
            raise BadRow("wrong type", f"expected a string (--format hh); found {shown(row[field])}", field)
    if "prompt" in row:
        prompt = conversation.parse_hh(row["prompt"], "prompt")
        if len(prompt) > 1 and prompt[-1] == {"role": "assistant", "content": ""}:
            prompt = prompt[:-1]  # "…\n\nAssistant:" asks for the answer
        answers = {field: row[field].strip() for field in _TEXTS[1:] if field in row}
        row = {**row, "prompt": prompt, **answers}
    elif "chosen" in row and "rejected" in row:
        if row["chosen"] == row["rejected"]:
            raise BadRow("identical pair", "chosen equals rejected; expected two different responses")
        pair = [conversation.parse_hh(row[field], field) for field in _PAIR]
        row = {**row, **dict(zip(("prompt", *_PAIR), split_pair(pair[0], pair[1]), strict=True))}
    elif "messages" in row and isinstance(row["messages"], str):
        row = _with_conversation({**row, "messages": conversation.parse_hh(row["messages"], "messages")})
    if "prompt" in row:
        values.filled_text(row["prompt"], "prompt")
    return row


def laid_out(row: Values) -> Values:
    """A row that one of `RECORD_FORMATS` made of a record; there is nothing left to lay out."""
    return row


RECORD_FORMATS: dict[str, Callable[[Mapping[str, Any]], list[Values]]] = {
    "lol": lol,
    "gsm8k": gsm8k,
    "humaneval": humaneval,
    "mbpp": mbpp,
}
"""Layouts that are not plain rows: how a whole record becomes rows with the schemas' own names."""

FORMATS: dict[str, Callable[[Values], Values]] = {
    "plain": plain,
    "chat": chat,
    "hh": hh,
    **dict.fromkeys(RECORD_FORMATS, laid_out),
}


def check_format(name: str) -> None:
    """Raises OptionError for a format that does not exist."""
    if name != "auto" and name not in FORMATS:
        raise OptionError(f"unknown format {name!r}{did_you_mean(name, [*FORMATS, 'auto'])}")


def detect(rows: Iterable[Mapping[str, Any]]) -> str:
    """The format of a source, from its first rows: the first row that shows a mark of `chat` or `hh` decides."""
    for row in rows:
        if isinstance(row.get("messages"), list) or any(isinstance(row.get(field), list) for field in _TEXTS):
            return "chat"
        if any(conversation.looks_like_hh(row.get(field)) for field in _TEXTS):
            return "hh"
    return "plain"


def _filled(row: Values) -> Values:
    """The row, its texts checked to be more than white space."""
    for field in _TEXTS:
        if field in row and not (field in _MAY_BE_EMPTY and row[field] == ""):
            values.filled_text(row[field], field)
    return row


def _both_whole(row: Values) -> bool:
    """Are chosen and rejected whole conversations, rather than answers that follow the row's prompt?"""
    if not all(isinstance(row.get(field), tuple) for field in _PAIR):
        return False
    prompt = row.get("prompt")
    if isinstance(prompt, tuple):
        return all(len(row[field]) > len(prompt) and row[field][: len(prompt)] == prompt for field in _PAIR)
    return prompt is None or any(row[field][0]["role"] != "assistant" for field in _PAIR)


def _with_conversation(row: Values) -> Values:
    """The row with `messages` cut into prompt and response; messages without an answer are a prompt alone."""
    if not isinstance(row["messages"], tuple):
        raise BadRow("wrong type", f"expected a list of messages; found {shown(row['messages'])}", "messages")
    messages = row["messages"]
    rest = {field: value for field, value in row.items() if field != "messages"}
    if messages[-1]["role"] != "assistant":
        return {**rest, "prompt": messages}
    prompt, response = split_last(messages, "messages")
    return {**rest, "prompt": prompt, "response": response}


def _with_answers(row: Values) -> Values:
    """The row with each answer cut free of a prompt it repeats, and the prompt as messages where an answer is."""
    answers = {field: row[field] for field in _TEXTS[1:] if isinstance(row.get(field), tuple)}
    prompt: Text | None = row.get("prompt")
    if not answers or not isinstance(prompt, str | tuple):
        return row
    turns = conversation.as_messages(prompt)
    cut = {
        field: conversation.response_text(
            answer[len(turns) :] if len(answer) > len(turns) and answer[: len(turns)] == turns else answer
        )
        for field, answer in answers.items()
    }
    return {**row, "prompt": turns, **cut}
