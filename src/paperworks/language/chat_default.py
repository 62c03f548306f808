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
    """True where the model has a chat template, and was not trained on plain text by us (its run's results say so)."""
    template = tokenizer.chat_template
    if not template or template == CHAT_TEMPLATE:
        return False
    for folder in (Path(model), Path(model).parent):
        if (folder / "results.json").is_file():
            try:
                results: Any = read_json(folder / "results.json")
                return bool(results.get("chat", results["data"]["format"] != "plain"))
            except (RunError, KeyError, TypeError, AttributeError):
                break
    return True


def as_message(prompt: Text, system: Sequence[Message] = ()) -> Text:
    """A text as a user's message, behind a system message where there is one; messages stay as they are."""
    return (*system, Message(role="user", content=prompt)) if isinstance(prompt, str) else prompt
