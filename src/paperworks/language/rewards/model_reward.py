"""A reward model as a reward: by its folder, run folder or Hub id, wherever a reward is named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from paperworks.core.errors import ModelError, RewardError, RunError
from paperworks.core.files import read_json
from paperworks.language.data.conversation import plain_text
from paperworks.language.data.schemas import Message, Text
from paperworks.language.rewards.model import RewardModel
from paperworks.language.rewards.reward import checked


@dataclass(frozen=True)
class ModelReward:
    """A reward model as a reward: text in, one finite number a response out.

    With `wraps_texts` a prompt that is a string is one user message to the model, as it is to a chat model.
    """

    name: str
    model: RewardModel
    wraps_texts: bool = False

    def __call__(self, prompts: Sequence[Text], responses: Sequence[Text]) -> list[float]:
        if len(prompts) != len(responses):
            raise RewardError(f"{self.name}: got {len(prompts)} prompts and {len(responses)} responses")
        if not responses:
            return []
        values = self.model.score_texts([self.laid_out(prompt) for prompt in prompts], responses)
        return checked(self.name, values, [plain_text(response) for response in responses])

    def laid_out(self, prompt: Text) -> Text:
        """The prompt as the model gets it."""
        return (Message(role="user", content=prompt),) if self.wraps_texts and isinstance(prompt, str) else prompt


def load_model_reward(name: str, *, device: str = "auto", chat_template: str | None = None) -> ModelReward:
    """The reward model of a folder, a run folder or a Hub id as a reward.

    Raises ModelError where it does not load, has several outputs, or has no trained head.
    """
    model = RewardModel.load(name, device=device, chat_template=chat_template)
    if model.fresh_modules:
        raise ModelError(
            f"{name} is a language model without a trained reward head ({', '.join(model.fresh_modules)}), so its rewards "
            f"would be random; train one: paperworks train reward-model --model {name} --data PAIRS"
        )
    return ModelReward(name, model, wraps_texts=_was_trained_on_chat(name, model))


def _was_trained_on_chat(name: str, model: RewardModel) -> bool:
    """Whether it has a chat template, and no record beside it says that its rows were plain strings."""
    if not model.tokenizer.chat_template:
        return False
    for folder in (Path(name), Path(name).parent):
        if (folder / "results.json").is_file():
            try:
                return bool(read_json(folder / "results.json")["data"]["format"] != "plain")
            except (RunError, KeyError, TypeError):
                break
    from paperworks.language.tiny import CHAT_TEMPLATE

    return model.tokenizer.chat_template != CHAT_TEMPLATE
