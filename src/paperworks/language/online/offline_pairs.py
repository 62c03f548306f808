"""Rows of a preference file beside a policy's own answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from paperworks.language.data import Dataset
from paperworks.language.items import tokenise
from paperworks.language.online.batches import Batch, items_of
from paperworks.language.online.collecting import token_scores
from paperworks.language.online.rollouts import Rollouts
from paperworks.language.policy import Policy
from paperworks.language.reference_scores import Reference, by_role
from paperworks.language.train_options import TrainOptions

ROLES = ("chosen", "rejected")


def pair_rows(
    dataset: Dataset[Any], rows: Sequence[Any], policy: Policy, reference: Policy, options: TrainOptions
) -> Batch:
    """These rows' pairs as token ids, with the reference's scores. Prompts that fill max_length are an error."""
    items = tokenise(dataset.with_rows(list(rows)), policy, ROLES, max_length=options.max_length)
    trees = [item.tree(ROLES) for item in items.items]
    logps, _ = token_scores(reference, trees)
    known = logps.split([sum(map(len, tree.responses)) for tree in trees])
    return Batch(items, Reference(by_role(items.items, ROLES, known)))


def with_online(batch: Batch, rollouts: Rollouts) -> Batch:
    """The rows with the answers to their prompts in the role "online"; rollouts are of the same rows, in order."""
    items, tokens = [], []
    for item, members in zip(batch.items.items, rollouts.members(), strict=True):
        answers = tuple(rollouts.ids[index] for index in members)
        items.append(dataclasses.replace(item, responses={**item.responses, "online": answers}))
        assert rollouts.reference is not None
        tokens.append(rollouts.of(rollouts.reference, members))
    return Batch(items_of(items, (*ROLES, "online")), Reference({**batch.reference.tokens, "online": tokens}))
