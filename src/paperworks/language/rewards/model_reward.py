"""A reward model as a reward: by its folder, run folder or Hub id, wherever a reward is named; and its members' scales."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from paperworks.core.errors import ModelError, RewardError
from paperworks.language.chat_default import texts_are_messages
from paperworks.language.data.conversation import plain_text
from paperworks.language.data.schemas import Message, Preference, Text
from paperworks.language.rewards.ensemble import (
    EnsembleReward,
    Scores,
    checked_scores,
    member_correlation,
    scale_of,
)
from paperworks.language.rewards.model import RewardModel
from paperworks.language.rewards.reward import checked

_TEXTS_FOR_SCALE = 2000


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


@dataclass(frozen=True)
class ModelMembers:
    """The members of an ensemble that is one model: their scores come from one pass."""

    judge: ModelReward

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"{self.judge.name}#{number}" for number in range(1, self.judge.model.members + 1))

    def scores(self, prompts: Sequence[Text], responses: Sequence[Text]) -> Scores:
        model = self.judge.model
        encoded = model.encode([self.judge.laid_out(prompt) for prompt in prompts], responses)
        return checked_scores(model.member_scores(encoded).T.numpy())


def load_model_reward(
    name: str, *, device: str = "auto", chat_template: str | None = None
) -> ModelReward | EnsembleReward:
    """The reward model of a folder, a run folder or a Hub id as a reward; of an ensemble the mean of its members.

    Raises ModelError where it does not load, has several outputs, or has no trained head.
    """
    model = RewardModel.load(name, device=device, chat_template=chat_template)
    if model.fresh_modules:
        raise ModelError(
            f"{name} is a language model without a trained reward head ({', '.join(model.fresh_modules)}), so its rewards "
            f"would be random; train one: paperworks train reward-model --model {name} --data PAIRS"
        )
    judge = ModelReward(name, model, wraps_texts=texts_are_messages(name, model.tokenizer))
    if model.ensemble is None:
        return judge
    return EnsembleReward(name, ModelMembers(judge), model.ensemble.scales)


def standardise_members(model: RewardModel, rows: Sequence[Preference], *, what: str) -> str:
    """Settle the scale of each member on the responses of these rows; returns a line for the user.

    Nothing, and an empty line, for a single model. `what` says what the rows are. Raises DataError where a member gives all
    of them one score.
    """
    if model.ensemble is None:
        return ""
    rows = rows[:_TEXTS_FOR_SCALE]
    prompts = [row.prompt for row in rows] * 2
    encoded = model.encode(prompts, [row.chosen for row in rows] + [row.rejected for row in rows])
    scores = checked_scores(model.member_scores(encoded).T.numpy())
    scales = tuple(scale_of(row, f"member {number}") for number, row in enumerate(scores, start=1))
    correlation = float(member_correlation(scores)[np.triu_indices(model.members, 1)].mean())
    on = f"{scores.shape[1]} responses of {what}"
    model.know_members(dataclasses.replace(model.ensemble, scales=scales, standardised_on=on, correlation=correlation))
    chosen, rejected = np.split(scores, 2, axis=1)
    differ = float((np.ptp(np.sign(chosen - rejected), axis=0) > 0).mean())
    line = (
        f"ensemble: {model.members} members standardised on {on}; their scores correlate {correlation:.3f} on average, and "
        f"they disagree about {differ:.1%} of pairs"
    )
    if correlation > 0.99:
        line += (
            "; members that agree everywhere protect from little: give them more layers of their own (--member-layers), or "
            "train single models with other seeds and name each by --reward"
        )
    return line
