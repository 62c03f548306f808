"""Advantages of scored responses over what the reference itself earns, settled before training.

V(x) is fitted on the reference's own answers to held-out prompts; A = R - V; rows that do not beat the reference go.
What a loss does with the advantage is in `lol`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from paperworks.core.errors import DataError, OptionError
from paperworks.core.options import option
from paperworks.language.objectives.objective import Prepared, ScoredLogps, require
from paperworks.language.objectives.row_rewards import RewardRule, rewards_of
from paperworks.language.objectives.scored import PrioritySampled

if TYPE_CHECKING:
    from paperworks.language.data.dataset import Dataset
    from paperworks.language.data.schemas import Scored, Text
    from paperworks.language.policy import Policy
    from paperworks.language.rewards.reward import Reward
    from paperworks.language.values.reference_value import ReferenceValue

PERCENTILES = (5, 25, 50, 75, 95)
ROWS_COMPARED = 64  # training rows whose stored reward is compared with the reward function's


@dataclass(frozen=True)
class AdvantageObjective(PrioritySampled):
    """Base of the A-LoL family: the credit is the advantage over what the reference earns on the prompt.

    Before training the reference answers held-out prompts (`value_prompts`; greedily, or `value_generations` samples
    each), `reward` scores the answers, and a value head on the reference's states of the prompt is fitted to that.
    Responses without a positive advantage are dropped: an epoch is the rows kept, so that training steps are scaled by
    the kept share. Scored answers made elsewhere are given as `value_data`. R and V must come from the same rewards:
    where the stored rewards of training rows differ from the function's, a note says by how much.
    """

    numbers: ClassVar[tuple[str, ...]] = ("reward", "advantage")
    takes_negative: ClassVar[bool] = True
    credited: ClassVar[Literal["reward", "advantage"]] = "advantage"

    reward: tuple[str, ...] = option(
        (), "what scores the reference's answers: a name, FILE.py:function, a reward model"
    )
    value_data: str | None = option(
        None, "file of the reference's answers with their rewards, in place of `reward`", metavar="FILE"
    )
    value_prompts: str = option(
        "0.1", "share (or number) of training rows whose prompts are held out for the value, or a file"
    )
    value_generations: int = option(1, "answers a prompt: 1 is greedy, more are sampled and averaged", low=1)
    value_max_new_tokens: int = option(128, "longest answer of the reference", low=1)
    value_head: Literal["attention", "mean", "mlp"] = option("attention", "shape of the value head")
    value_epochs: int = option(10, "passes over the answers", low=1)
    value_learning_rate: float = option(1e-3, "of the value head (the paper's 7B model: 1e-5)", above=0)
    value_held_out: float = option(
        0.0,
        "share of the answers that choose the head's epoch; 0: the training error does (as released)",
        low=0,
        below=1,
    )
    filter_negative: bool = option(
        True, "drop responses that do not beat the reference; false (an ablation) keeps them, with negative weights"
    )
    value: Any = dataclasses.field(default=None, init=False, repr=False, compare=False)  # ReferenceValue, once prepared

    def __post_init__(self) -> None:
        super().__post_init__()
        kinds = ("attention", "mean", "mlp")
        require(self.value_head in kinds, "value_head", self.value_head, ", ".join(kinds))
        require(
            self.filter_negative or self.sampling_strategy == "shuffle",
            "filter_negative",
            self.filter_negative,
            "true where sampling_strategy is not shuffle",
            "a negative advantage cannot be sampled by",
        )

    def worth(self, batch: ScoredLogps) -> Float[Tensor, " items"]:
        return super().worth(batch) if self.filter_negative else batch.advantage

    @torch.no_grad()
    def metrics(self, batch: ScoredLogps) -> dict[str, Any]:
        return super().metrics(batch) | {"advantage": batch.advantage}

    # ------------------------------------------------------------------------------------------------------ preparing

    def prepare(self, dataset: Dataset, policy: Policy, *, seed: int, held_out: bool = False) -> Prepared:
        """Fit the value (training rows), write every row's advantage, and drop rows that do not beat the reference.

        Raises OptionError where nothing can score the reference's answers; DataError for bad rewards, or where no
        response beats the reference.
        """
        rule = self.rule(dataset.rows)
        rewarded = self._rewarded(dataset, rule, held_out=held_out)
        if held_out:
            if self.value is None:
                raise OptionError(f"objective {self.name}: prepare the training rows before the held-out ones")
            return Prepared(self, self._with_advantages(rewarded, policy, self.value, rule)[0])
        value, rest, notes = self._fitted(rewarded, policy, rule, seed)
        prepared = dataclasses.replace(self)
        object.__setattr__(prepared, "value", value)
        kept, advantages = self._with_advantages(rest, policy, value, rule)
        better = [advantage for advantage in advantages if advantage > rule.rounding]
        share = len(better) / len(advantages)
        at = torch.tensor(advantages, dtype=torch.float64).quantile(torch.tensor(PERCENTILES).double() / 100).tolist()
        percentiles = {str(percent): found for percent, found in zip(PERCENTILES, at, strict=True)}
        beat = f"{len(better)} of {len(advantages)} rows ({share:.1%}) beat the reference's value"
        notes += [
            f"{beat} and are kept; an epoch is those rows, so that the steps of an epoch are scaled by that share"
            if self.filter_negative
            else f"{beat}; the others are kept too, with negative weights (filter_negative is false)",
            "advantages of all rows: " + ", ".join(f"{percent}% {found:.3g}" for percent, found in percentiles.items()),
            *self._notes_on(better),
        ]
        facts = {
            "reward": {"formula": rule.formula, "range": [rule.low, rule.high]},
            "value": value.facts(),
            "rows": len(advantages),
            "kept": len(kept.rows),
            "positive_share": share,
            "advantage_percentiles": percentiles,
        }
        return Prepared(prepared, kept, tuple(notes), facts, lambda folder: value.save(folder / "value_head"))

    def _notes_on(self, kept: Sequence[float]) -> list[str]:
        """Remarks on the advantages of the rows kept."""
        return []

    def _fitted(
        self, dataset: Dataset, policy: Policy, rule: RewardRule, seed: int
    ) -> tuple[ReferenceValue, Dataset, list[str]]:
        """The value, the rows left to train on, and notes."""
        from paperworks.language.values.fit import ValueFitOptions
        from paperworks.language.values.head import ValueHeadOptions
        from paperworks.language.values.reference_value import fit_reference_value

        rest, notes = dataset, []
        if self.value_data is not None:
            prompts, targets = self._stored_answers(rule)
        else:
            reward = self._reward_function(rule)
            notes += self._offset(dataset, rule, reward)
            prompts, rest = self._prompts(dataset, seed)
            prompts, targets, skipped = self._answers(policy, prompts, rule, reward, seed)
            notes += [f"{skipped} prompts leave no room for an answer; the value is fitted without them"] * bool(
                skipped
            )
        value = fit_reference_value(
            policy.start(),
            prompts,
            targets,
            ValueHeadOptions(kind=self.value_head, low=rule.low, high=rule.high),
            ValueFitOptions(
                epochs=self.value_epochs,
                learning_rate=self.value_learning_rate,
                held_out=self.value_held_out,
                seed=seed,
            ),
        )
        return value, rest, [*notes, *value.notes()]

    def _with_advantages(
        self, dataset: Dataset, policy: Policy, value: ReferenceValue, rule: RewardRule
    ) -> tuple[Dataset, list[float]]:
        """The rows to train on, with their advantages, and the advantages of all rows."""
        values = value.of(policy.start(), [row.prompt for row in dataset.rows])
        advantages = [row.reward - found for row, found in zip(dataset.rows, values, strict=True)]
        kept = [
            dataclasses.replace(row, advantage=advantage)
            for row, advantage in zip(dataset.rows, advantages, strict=True)
            if advantage > rule.rounding or not self.filter_negative
        ]
        if not any(advantage > rule.rounding for advantage in advantages):
            raise DataError(
                f"no positive advantage: no response beats the reference, kept 0 of {len(advantages)} rows (highest "
                f"reward {max(row.reward for row in dataset.rows):.4g}, values {min(values):.4g} to {max(values):.4g}); "
                "give better responses, or check that the rewards of the rows and of `reward` have one scale",
                file=dataset.report.source or None,
            )
        return dataset.with_rows(kept), advantages

    def _reward_function(self, rule: RewardRule) -> Reward:
        from paperworks.language.rewards import load_reward

        if not self.reward:
            raise OptionError(
                f"objective {self.name} fits its value on the reference's own answers, which must be scored: give "
                "--reward NAME, FILE.py:function or a reward model's folder; or score answers yourself and give them "
                "as --value-data FILE"
            )
        return rule.of_functions([load_reward(name) for name in self.reward])

    def _stored_answers(self, rule: RewardRule) -> tuple[list[Text], list[float]]:
        from paperworks.language.data import read
        from paperworks.language.data.schemas import Scored

        assert self.value_data is not None
        rows: Sequence[Scored] = read(self.value_data, Scored).rows
        return [row.prompt for row in rows], rewards_of(rule, rows)

    def _prompts(self, dataset: Dataset, seed: int) -> tuple[list[Text], Dataset]:
        """Prompts to fit the value on, each once, and the rows left to train on."""
        from paperworks.language.data import read
        from paperworks.language.data.schemas import PromptRow
        from paperworks.language.values.reference_value import each_once

        try:
            amount = float(self.value_prompts)
        except ValueError:
            return each_once([row.prompt for row in read(self.value_prompts, PromptRow).rows]), dataset
        rest, held = dataset.split(int(amount) if amount >= 1 and amount.is_integer() else amount, seed)
        return each_once([row.prompt for row in held.rows]), rest

    def _answers(
        self, policy: Policy, prompts: Sequence[Text], rule: RewardRule, reward: Reward, seed: int
    ) -> tuple[list[Text], list[float], int]:
        """Prompts that the reference could answer, the mean reward of its answers to each, and how many it could not."""
        from paperworks.language.values.reference_value import rewards_of_answers

        return rewards_of_answers(
            policy.start(),
            prompts,
            reward,
            bounds=(rule.low, rule.high),
            generations=self.value_generations,
            max_new_tokens=self.value_max_new_tokens,
            seed=seed,
        )

    def _offset(self, dataset: Dataset, rule: RewardRule, reward: Reward) -> list[str]:
        """A note where stored rewards are not the function's: every advantage then is off by the mean difference."""
        rows: Sequence[Scored] = dataset.rows[:: max(1, len(dataset.rows) // ROWS_COMPARED)][:ROWS_COMPARED]
        scores = reward([row.prompt for row in rows], [row.response for row in rows])
        differences = [row.reward - score for row, score in zip(rows, scores, strict=True)]  # type: ignore[operator]
        offset, size = (math.fsum(found) / len(rows) for found in (differences, map(abs, differences)))
        if size <= 0.02 * (rule.high - rule.low):
            return []
        return [
            f"warning: the rows' rewards differ from those of {reward.name} by {size:.3g} on average, with an offset of "
            f"{offset:+.3g} (over {len(rows)} rows): advantages are off by it, since the value is fitted on the latter; "
            "score the rows with the same reward"
        ]
