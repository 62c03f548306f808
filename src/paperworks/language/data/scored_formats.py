"""File layouts of scored answers that are not plain rows.

`lol`: one line a pair of answers, as the A-LoL authors store HH (abaheti95/LoL-RL): `prefix`, for each answer the turns
before it, marked `<|prompter|>` and `<|assistant|>`; `suffix`, the answers; `reward`, a reward model's raw score of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from paperworks.language.data import values
from paperworks.language.data.problems import BadRow, shown
from paperworks.language.data.schemas import Message

_SPEAKERS = {"<|prompter|>": "user", "<|assistant|>": "assistant"}


def looks_like_lol(row: Mapping[str, Any]) -> bool:
    """Is this a record of the `lol` layout?"""
    return all(isinstance(row.get(field), list) for field in ("prefix", "suffix", "reward"))


def lol(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A record as one plain row an answer: {prompt: messages, response, reward}. Raises BadRow.

    The empty assistant's turn that ends a prefix asks for the answer and is left out; turns of one speaker that follow
    each other become one, as chat templates expect. An answer may be empty, as a few of HH's are.
    """
    for field in ("prefix", "suffix", "reward"):
        if field not in record:
            raise BadRow(
                "missing field", "missing; expected lists prefix, suffix and reward, as long (--format lol)", field
            )
        if not isinstance(record[field], list):
            raise BadRow("wrong type", f"expected a list, an entry an answer; found {shown(record[field])}", field)
    sizes = {field: len(record[field]) for field in ("prefix", "suffix", "reward")}
    if len(set(sizes.values())) != 1 or not sizes["suffix"]:
        found = ", ".join(f"{field} {size}" for field, size in sizes.items())
        raise BadRow("different lengths", f"expected as many entries (1 or more) in each list; found {found}", "suffix")
    rows = []
    for prefix, suffix, reward in zip(record["prefix"], record["suffix"], record["reward"], strict=True):
        response = values.text(suffix, "suffix")
        assert isinstance(response, str)  # a JSON list holds no messages
        rows.append({"prompt": _turns(prefix), "response": response.strip(), "reward": values.number(reward, "reward")})
    return rows


def as_group(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The rows of one record as one row: {prompt, responses, scores}. Raises BadRow where their prompts differ."""
    if any(row["prompt"] != rows[0]["prompt"] for row in rows):
        raise BadRow(
            "different prompts", "expected the same turns before every answer, to compare their rewards", "prefix"
        )
    return {
        "prompt": rows[0]["prompt"],
        "responses": [row["response"] for row in rows],
        "scores": [row["reward"] for row in rows],
    }


def _turns(prefix: object) -> tuple[Message, ...]:
    if not isinstance(prefix, list) or not prefix:
        raise BadRow("wrong type", f"expected a list of turns; found {shown(prefix)}", "prefix")
    messages: list[Message] = []
    for turn in prefix:
        role, content = _parted(turn)
        if messages and messages[-1]["role"] == role:
            content = "\n\n".join(part for part in (messages.pop()["content"], content) if part)
        messages.append(Message(role=role, content=content))
    if messages[-1] == Message(role="assistant", content=""):
        messages.pop()
    if not messages or messages[-1]["role"] != "user":
        raise BadRow("no question", "expected the last turn before the answer to be a <|prompter|>'s", "prefix")
    return tuple(messages)


def _parted(turn: object) -> tuple[str, str]:
    for mark, role in _SPEAKERS.items():
        if isinstance(turn, str) and turn.startswith(mark):
            text = values.text(turn.removeprefix(mark).strip(), "prefix")
            assert isinstance(text, str)
            return role, text
    raise BadRow(
        "not a dialogue", f"expected turns that begin with {' or '.join(_SPEAKERS)}; found {shown(turn)}", "prefix"
    )
