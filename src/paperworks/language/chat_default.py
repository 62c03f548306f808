"""Whether a bare text is best taken as a user's message to a model, or as the beginning of a text to continue."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from paperworks.core.errors import RunError
from paperworks.core.files import read_json
from paperworks.language.data.schemas import Message, Text
from paperworks.language.tiny import CHAT_TEMPLATE


def texts_are_messages(model: str, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Where the model has a chat template: what its training run's results say of its rows, if there are any, else True.

    The template of the embedded tiny models is a form without meaning: they were trained on plain text.
    """
    if not tokenizer.chat_template:
        return False
    for folder in (Path(model), Path(model).parent):
        if (folder / "results.json").is_file():
            try:
                results: Any = read_json(folder / "results.json")
                return bool(results.get("chat", results["data"]["format"] != "plain"))
            except (RunError, KeyError, TypeError, AttributeError):
                break
    return tokenizer.chat_template != CHAT_TEMPLATE


def as_message(prompt: Text, system: Sequence[Message] = ()) -> Text:
    """A text as a user's message, behind a system message where there is one; messages stay as they are."""
    return (*system, Message(role="user", content=prompt)) if isinstance(prompt, str) else prompt
