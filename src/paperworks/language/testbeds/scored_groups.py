"""Files of scored groups from a policy of our own, as losses of other kinds take them, and a loss that forgets who wrote them.

What experiments on a fixed file of scored responses share.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from paperworks.core.files import write_atomic
from paperworks.language.data import Demonstration, Preference, ScoredGroup
from paperworks.language.objectives.copg import CoPG, GroupLogps
from paperworks.language.policy import Policy
from paperworks.language.rewards.reward import Reward
from paperworks.language.sampling import sample
from paperworks.language.testbeds.tiny_alignment import MAX_NEW_TOKENS


@dataclass(frozen=True)
class OffPolicyGradient(CoPG):
    """Policy gradient on responses that another policy wrote, without baseline and as if they were its own.

    loss = the mean over a row's responses of -(R - beta (log pi - log pi_ref)) log pi, the first factor without gradient.
    A baseline of the method's paper (arXiv 2406.19185, section 5); it has no name on the command line.
    """

    name: ClassVar[str] = "off-policy-gradient"

    def loss(self, batch: GroupLogps) -> Float[Tensor, " rows"]:
        credit = (batch.reward - self.beta * batch.response.log_ratio).detach()
        return -batch.padded(credit * batch.response.policy).sum(1) / batch.present.sum(1)


def sample_groups(
    policy: Policy, prompts: Sequence[str], score: Reward, *, responses: int, temperature: float, seed: int
) -> list[ScoredGroup]:
    """`responses` samples to each prompt with their scores."""
    drawn = sample(
        policy,
        list(prompts),
        n=responses,
        max_new_tokens=MAX_NEW_TOKENS,
        temperature=temperature,
        seed=seed,
        batch_rows=512,
    )
    return [
        ScoredGroup(prompt, tuple(found.texts), tuple(score([prompt] * responses, found.texts)))
        for prompt, found in zip(prompts, drawn, strict=True)
    ]


def best_of_each(rows: Sequence[ScoredGroup]) -> list[Demonstration]:
    """The response of the highest score of every group (the first of several)."""
    return [Demonstration(row.prompt, row.responses[row.scores.index(max(row.scores))]) for row in rows]


def ranked_pairs(rows: Sequence[ScoredGroup]) -> list[Preference]:
    """The best response of a group with the worst, the next with the next; pairs that tie or are the same are left out."""
    pairs = []
    for row in rows:
        order = sorted(range(len(row.scores)), key=lambda index: -row.scores[index])
        for better, worse in zip(order[: len(order) // 2], reversed(order), strict=False):
            if row.scores[better] > row.scores[worse] and row.responses[better] != row.responses[worse]:
                pairs.append(Preference(row.prompt, row.responses[better], row.responses[worse]))
    return pairs


def save_rows(path: Path, rows: Sequence[ScoredGroup]) -> None:
    """Write groups as JSON lines, in a form that `load_rows` and users read."""
    lines = [json.dumps({"prompt": row.prompt, "completions": row.responses, "scores": row.scores}) for row in rows]
    write_atomic(path, "\n".join(lines) + "\n")


def load_rows(path: Path) -> list[ScoredGroup]:
    """The rows that `save_rows` wrote."""
    found = (json.loads(line) for line in path.read_text().splitlines())
    return [ScoredGroup(each["prompt"], tuple(each["completions"]), tuple(each["scores"])) for each in found]
