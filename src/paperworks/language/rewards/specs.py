"""Rewards given as text `kind:what`: number:FIELD, exact:FIELD, regex:PATTERN, tests:FIELD, judge:MODEL@URL.

`load_reward` asks here before it looks for functions and models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from paperworks.core.errors import OptionError, did_you_mean
from paperworks.language.data.schemas import PromptRow
from paperworks.language.rewards.reward import Reward

FORMS = {
    "number": "number:FIELD",
    "exact": "exact:FIELD",
    "regex": "regex:PATTERN",
    "tests": "tests:FIELD",
    "judge": "judge:MODEL@URL",
}
DESCRIBED = ", ".join(FORMS.values())
"""How each is written, for messages and help texts."""


def is_spec(name: str) -> bool:
    """Whether a reward's name is of one of these kinds."""
    kind, colon, _ = name.partition(":")
    return kind in FORMS and (bool(colon) or kind in ("number", "exact", "tests")) and not name.partition(".py:")[1]


def reward_of_spec(name: str, rows: Sequence[PromptRow] | None = None, *, allow_unsandboxed: bool = False) -> Reward:
    """The reward of a text of one of these kinds.

    Parameters: rows, those of the prompts to be answered, for kinds that compare with a field of them.
    Raises OptionError for a text that is not understood, where rows are needed and not given, and where tests are to be
    run without a sandbox; DataError for rows without the field.
    """
    kind, _, rest = name.partition(":")
    if kind == "regex":
        from paperworks.language.rewards.verifier import pattern_reward

        return pattern_reward(rest)
    if kind == "judge":
        from paperworks.language.rewards.judge import ScoringJudge, judge_options

        return ScoringJudge(judge_options(rest))
    if rows is None:
        raise OptionError(
            f"reward {name}: compares answers with a field of the prompts' rows, and there are none here; it goes with "
            "--prompts FILE"
        )
    from paperworks.language.rewards.verifier import ExactAnswer, NumberAnswer, RowReward

    if kind == "number":
        return RowReward(NumberAnswer(rest or "answer"), rows)
    if kind == "exact":
        return RowReward(ExactAnswer(rest or "answer"), rows)
    from paperworks.core.sandbox import Sandbox
    from paperworks.language.rewards.programs import Credit, UnitTests

    field, _, credit = rest.partition(":")
    if credit not in ("", "all", "share"):
        hint = did_you_mean(credit, ("all", "share"))
        raise OptionError(f"reward {name}: expected tests:FIELD, tests:FIELD:all or tests:FIELD:share{hint}")
    sandbox = Sandbox(allow_unsandboxed=allow_unsandboxed)
    return RowReward(UnitTests(sandbox, field or "test", cast(Credit, credit or "all")), rows)
