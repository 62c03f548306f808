"""What must be so before an online run begins, and what its options do not do: said before anything is sampled."""

from __future__ import annotations

from typing import Any

from paperworks.core.errors import DataError, OptionError
from paperworks.language.data import Dataset
from paperworks.language.online.methods import METHODS, Method
from paperworks.language.online.options import OnlineOptions
from paperworks.language.policy import Policy
from paperworks.language.sampling import check_room


def check_options(method: Method, online: OnlineOptions, *, has_reward: bool, has_judge: bool) -> None:
    """Raises OptionError for what cannot be trained with: nothing that says what answers are worth, or nothing to compare."""
    if method.needs_reward and not has_reward:
        if has_judge and not method.judges:
            raise OptionError(f"train {method.name}: it needs a number for each answer, not a judge: give --reward R")
        if not has_judge:
            asked = "--reward R, or --judge J" if method.judges else "--reward R"
            raise OptionError(f"train {method.name}: what are answers worth? Give {asked}")
    if online.samples < method.least_samples:
        raise OptionError(
            f"option samples={online.samples}: {method.name} learns from how answers to the same prompt differ; expected at "
            f"least {method.least_samples}"
        )
    if online.kl_control == "adaptive" and not method.penalises:
        with_penalty = ", ".join(name for name, other in METHODS.items() if other.penalises)
        raise OptionError(
            f"option kl_control=adaptive: {method.name} holds to the reference by its own options, not by kl_coef; "
            f"adaptive control is for {with_penalty}"
        )


def check_room_for_answers(policy: Policy, prompts: Dataset[Any]) -> None:
    """Raises DataError (file:line) for the first prompt that leaves no room for an answer, before anything is sampled."""
    for number, row in enumerate(prompts.rows, start=1):
        try:
            check_room(policy, policy.encode_prompt(row.prompt), "the prompt" if row.where.file else f"prompt {number}")
        except DataError as error:
            if not row.where.file:
                raise
            raise DataError(str(error), file=row.where.file, line=row.where.line, field="prompt") from None


def option_notes(method: Method, online: OnlineOptions) -> list[str]:
    """What a user should know of options that do less, or other, than their names say."""
    lines = []
    if not method.penalises and online.kl_coef != OnlineOptions.kl_coef:
        lines.append(
            f"kl_coef={online.kl_coef:g} changes nothing: {method.name} holds to the reference by its own options"
        )
    if method.name == "ipo-md":
        lines.append("reward, length and KL are measured on the mixture's answers: ipo-md draws no others")
    if method.by_likelihood and online.temperature != 1:
        lines.append(
            f"temperature={online.temperature:g}: likelihoods and KL are those of the policy at this temperature, which is "
            "what learns; use it at this temperature"
        )
    elif method.needs_reward and online.temperature != 1:
        lines.append(f"temperature={online.temperature:g} is that of drawing; likelihoods and KL are of temperature 1")
    if method.by_likelihood and online.top_k:
        lines.append(
            f"top_k={online.top_k}: answers are not drawn from the policy that learns, whose tokens are not cut"
        )
    return lines
