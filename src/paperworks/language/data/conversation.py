"""Conversations as messages: checking them, cutting them into prompt and response, writing them as plain text.

Knows nothing of files, schemas' fields or tokenizers; a model's chat template is applied by the policy.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from paperworks.language.data.problems import BadRow, shown
from paperworks.language.data.schemas import Message, Text

_SPEAKERS = {"Human": "user", "Assistant": "assistant"}
_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")


def parse_messages(value: object, field: str) -> tuple[Message, ...]:
    """A list of {role, content} objects as messages; other keys are left out. Raises BadRow."""
    if not isinstance(value, list | tuple) or not value:
        what = "an empty list" if isinstance(value, list | tuple) else shown(value)
        raise BadRow("wrong type", f"expected a list of messages, each with role and content; found {what}", field)
    messages = []
    for number, item in enumerate(value, start=1):
        role = item.get("role") if isinstance(item, dict) else None
        content = item.get("content") if isinstance(item, dict) else None
        if not isinstance(role, str) or not role or not isinstance(content, str):
            found = f"an object with {', '.join(map(ascii, item)) or 'no keys'}"[:80] if isinstance(item, dict) else ""
            if isinstance(role, str) and role and isinstance(item, dict) and "content" in item:
                found = f"content that is {shown(content)}"
            raise BadRow(
                "bad message",
                f"message {number}: expected an object whose role and content are strings; "
                f"found {found or shown(item)}",
                field,
            )
        messages.append(Message(role=role, content=content))
    return tuple(messages)


def looks_like_hh(value: object) -> bool:
    """Is this a dialogue in the form of Anthropic's HH files, which begin with a blank line and `Human:`?"""
    return isinstance(value, str) and value.startswith("\n\nHuman:")


def parse_hh(text: str, field: str) -> tuple[Message, ...]:
    """A `\\n\\nHuman: …\\n\\nAssistant: …` dialogue as messages, the text of each turn stripped.

    Turns of one speaker that follow each other (0.3% of Anthropic's harmless-base have them) become one message, so
    that chat templates which insist on alternating roles take them. Raises BadRow for text that is no dialogue.
    """
    text = text.lstrip()
    if not _TURN.match(text):
        raise BadRow("not a dialogue", f"expected '\\n\\nHuman: …\\n\\nAssistant: …'; found {shown(text)}", field)
    marks = list(_TURN.finditer(text))
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    messages: list[Message] = []
    for mark, end in zip(marks, ends, strict=True):
        role, content = _SPEAKERS[mark[1]], text[mark.end() : end].strip()
        if messages and messages[-1]["role"] == role:
            content = "\n\n".join(part for part in (messages.pop()["content"], content) if part)
        messages.append(Message(role=role, content=content))
    return tuple(messages)


def split_pair(chosen: tuple[Message, ...], rejected: tuple[Message, ...]) -> tuple[Text, Text, Text]:
    """(prompt, chosen, rejected) of two whole conversations: the prompt is what both begin with.

    Nearly always they differ in the last turn alone. Where they part earlier, the prompt is the longest common run of
    turns and the responses are all that follows. Raises BadRow where nothing is shared, or where it is not the
    assistant who speaks first after the prompt and last of all.
    """
    for field, side in (("chosen", chosen), ("rejected", rejected)):
        if side[-1]["role"] != "assistant":
            raise BadRow("no final answer", f"expected the assistant's turn last; found {side[-1]['role']!r}", field)
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    if shared == 0:
        raise BadRow("no shared prompt", "chosen and rejected share no first turn; expected one prompt for both")
    if chosen[shared]["role"] != "assistant" or rejected[shared]["role"] != "assistant":
        raise BadRow(
            "different prompts",
            f"chosen and rejected part at turn {shared + 1}, which is not the assistant's on both sides; "
            "expected two answers to one prompt",
        )
    return chosen[:shared], response_text(chosen[shared:]), response_text(rejected[shared:])


def split_last(messages: tuple[Message, ...], field: str) -> tuple[Text, Text]:
    """(prompt, response) of one conversation: the response is the assistant's last turn. Raises BadRow."""
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        raise BadRow(
            "no final answer",
            f"expected a conversation that ends with an answer by the assistant; found {len(messages)} "
            f"message{'s' * (len(messages) != 1)}, the last by {messages[-1]['role']!r}",
            field,
        )
    return messages[:-1], messages[-1]["content"]


def response_text(messages: tuple[Message, ...]) -> Text:
    """A response as it is kept: the content alone where it is one turn of the assistant."""
    if len(messages) == 1 and messages[0]["role"] == "assistant":
        return messages[0]["content"]
    return messages


def as_messages(prompt: Text, response: Text | None = None) -> tuple[Message, ...]:
    """Prompt and response as one conversation: plain strings become a user's and an assistant's turn."""
    turns = (Message(role="user", content=prompt),) if isinstance(prompt, str) else prompt
    if response is None:
        return turns
    return turns + ((Message(role="assistant", content=response),) if isinstance(response, str) else response)


def plain_text(text: Text) -> str:
    """Text as a reward function or a table sees it: messages as `role: content`, a blank line between turns."""
    if isinstance(text, str):
        return text
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in text)


def characters(text: Text) -> int:
    """The length of a text in characters, roles not counted."""
    return len(text) if isinstance(text, str) else sum(len(message["content"]) for message in text)


def is_blank(text: Text) -> bool:
    """Does the text hold nothing but white space?"""
    contents: Sequence[str] = [text] if isinstance(text, str) else [message["content"] for message in text]
    return not any(content.strip() for content in contents)
