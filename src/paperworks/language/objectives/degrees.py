"""An auxiliary loss that makes a model tell degrees of preference apart, joined to any objective on pairs or feedback.

Versions of a response with more and more key phrases removed are worse by construction. A head on the mean hidden state
of a version says its degree; the loss of that trains the whole model, and the head is left out of what is saved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from paperworks.core.errors import OptionError
from paperworks.core.files import write_atomic
from paperworks.language.data.schemas import Feedback, Preference
from paperworks.language.degrees.ladder_file import write_ladders
from paperworks.language.degrees.options import DegreeOptions
from paperworks.language.degrees.rake import Extractor
from paperworks.language.degrees.rows import GradedRows, grade_rows, graded_roles
from paperworks.language.degrees.stop_words import load_stop_words
from paperworks.language.degrees.tf_idf import TfIdf
from paperworks.language.objectives.objective import Objective, Prepared, ResponseLogps, StepInputs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paperworks.language.data.dataset import Dataset
    from paperworks.language.data.schemas import Text
    from paperworks.language.items import Items
    from paperworks.language.policy import Policy

VERSIONS = "degrees"  # the role of the versions
HEAD = "degree"  # the module
TERM = "degree"  # the term of the loss


@dataclass(frozen=True)
class Versions:
    """The versions of a micro-batch's graded responses, those of degree 0 too, in no particular order."""

    degree: Int[Tensor, " versions"]
    ladder: Int[Tensor, " versions"]  # versions of the same response have the same number
    response: ResponseLogps  # their scores; features and reference where they were asked for
    weight: Float[Tensor, " versions"]  # of their rows

    @cached_property
    def pairs(self) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"], Float[Tensor, " pairs"]]:
        """(better, worse) versions of the same response, and the share of its response's pairs that each is."""
        by_ladder: dict[int, list[int]] = {}
        for at, ladder in enumerate(self.ladder.tolist()):
            by_ladder.setdefault(ladder, []).append(at)
        degrees = self.degree.tolist()
        better, worse, share = [], [], []
        for versions in by_ladder.values():
            ordered = sorted(versions, key=degrees.__getitem__)
            found = [(a, b) for a, b in combinations(ordered, 2) if degrees[a] < degrees[b]]
            better += [a for a, _ in found]
            worse += [b for _, b in found]
            share += [1 / len(found)] * len(found)
        device = self.degree.device
        return (
            torch.tensor(better, dtype=torch.long, device=device),
            torch.tensor(worse, dtype=torch.long, device=device),
            torch.tensor(share, dtype=self.weight.dtype, device=device),
        )


@dataclass(frozen=True)
class DegreeBatch:
    """A batch of the objective beneath, and the versions beside it."""

    base: Any
    versions: Versions
    logits: Float[Tensor, "versions outputs"] | None  # None with head=ranking


@dataclass(frozen=True)
class WithDegrees(Objective):
    """An objective and, beside it, the loss of telling degrees apart (SPO, arXiv 2409.17791).

    loss = that of `base` + weight * mean over versions of the head's loss: of a softmax the cross-entropy of the degree;
    of an ordinal head the mean over thresholds k of the logistic loss of "degree > k"; of ranking, without a head, the
    mean over pairs of versions of one response of -log sigmoid(ranking_beta * difference of log-ratios). The two means
    stay apart, so that the weight means the same with any number of versions. With weight=0 nothing is built or scored
    and training is `base` bit for bit.

    Everything else is that of `base`, whose term `loss` is called `alignment` here.
    """

    base: Objective
    options: DegreeOptions = field(default_factory=DegreeOptions)
    extractor: Extractor | None = field(default=None, repr=False)  # in place of the options' own; see `build_ladder`
    detach_features: bool = False  # train the head alone, for comparison: the model then never learns of degrees

    def __post_init__(self) -> None:
        if self.base.trains != "policy" or not issubclass(self.base.schema, Preference | Feedback):
            raise OptionError(
                f"the degree loss joins objectives on preference pairs or feedback, not {self.base.name}; "
                "leave --degree-weight out"
            )

    # -------------------------------------------------------------------------------------------- what the loop computes

    @property
    def is_on(self) -> bool:
        """Whether there is a degree loss at all."""
        return self.options.weight > 0

    @property
    def _graded_roles(self) -> tuple[str, ...]:
        return graded_roles(self.schema, self.options)

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.base.name

    @property
    def schema(self) -> type:  # type: ignore[override]
        return self.base.schema

    @property
    def needs_reference(self) -> bool:  # type: ignore[override]
        return self.base.needs_reference or (self.is_on and self.options.head == "ranking")

    @property
    def needs_tokens(self) -> bool:  # type: ignore[override]
        return self.base.needs_tokens

    @property
    def numbers(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.base.numbers

    @property
    def step_kl_role(self) -> str | None:  # type: ignore[override]
        return self.base.step_kl_role

    @property
    def learning_rates(self) -> tuple[float, float]:  # type: ignore[override]
        return self.base.learning_rates

    @property
    def roles(self) -> tuple[str, ...]:
        return (*self.base.roles, VERSIONS) if self.is_on else self.base.roles

    @property
    def kl_roles(self) -> tuple[str, ...]:
        return self.base.kl_roles

    @property
    def feature_roles(self) -> tuple[str, ...]:
        if not self.is_on or self.options.head == "ranking":
            return self.base.feature_roles
        return tuple(dict.fromkeys((*self.base.feature_roles, *self._graded_roles, VERSIONS)))

    @property
    def reference_roles(self) -> tuple[str, ...]:
        known = self.base.reference_roles
        if self.is_on and self.options.head == "ranking":
            return tuple(dict.fromkeys((*known, *self._graded_roles, VERSIONS)))
        return (*known, VERSIONS) if self._ranks_by_reward and self.base.needs_reference else known

    @property
    def _ranks_by_reward(self) -> bool:
        """Whether versions are ranked by the implicit reward of `base`; not where that is read token by token."""
        return self.is_on and self.options.rewards and not self.base.needs_tokens

    def modules(self, policy: Policy) -> dict[str, nn.Module]:
        heads = self.base.modules(policy)
        if not self.is_on or self.options.head == "ranking":
            return heads
        outputs = self.options.count - (self.options.head == "ordinal")
        width: int = policy.base.config.hidden_size
        with torch.random.fork_rng(devices=[]):  # so that the base's random numbers are what they are without a head
            head = nn.Linear(width, outputs)
        nn.init.zeros_(head.bias)
        return {**heads, HEAD: head}

    @property
    def module_learning_rate(self) -> float | None:
        return self.options.head_lr

    def sampling(self, items: Items) -> Tensor | None:
        return self.base.sampling(items)

    # --------------------------------------------------------------------------------------------------------- preparing

    def prepare(self, dataset: Dataset, policy: Policy, *, seed: int, held_out: bool = False) -> Prepared:
        """Build the ladders once, after what `base` prepares. Raises DataError as `grade_rows` does.

        Held-out rows may have few: they are only measured. The run's folder gets `ladders.jsonl` and `stop_words.txt`.
        """
        prepared = self.base.prepare(dataset, policy, seed=seed, held_out=held_out)
        if not self.is_on:
            return replace(prepared, objective=replace(self, base=prepared.objective))
        extractor = self.extractor
        if extractor is None and self.options.extractor == "tfidf":
            texts = [getattr(row, role) for row in prepared.dataset for role in self._graded_roles or ("chosen",)]
            texts = [text for text in texts if isinstance(text, str)]
            extractor = TfIdf.of(texts, load_stop_words(self.options.stop_words))  # held-out rows are judged by it too

        def sampler(prompts: Sequence[Text]) -> list[str]:
            from paperworks.language.sampling import sample

            limit = self.options.max_new_tokens
            return [drawn.texts[0] for drawn in sample(policy, prompts, max_new_tokens=limit, seed=seed)]

        graded = grade_rows(
            prepared.dataset.rows, self.options, extractor=extractor, sampler=sampler, enough=not held_out
        )
        return Prepared(
            replace(self, base=prepared.objective, extractor=extractor),
            prepared.dataset.with_rows(graded.rows),
            (*prepared.notes, *_notes(graded)),
            {**prepared.facts, "degrees": _facts(graded)},
            None if held_out else _Artefacts(graded, self.options, prepared),
        )

    def option_notes(self) -> list[str]:
        return self.base.option_notes()

    def warnings(self, first: Mapping[str, float], now: Mapping[str, float]) -> list[str]:
        return self.base.warnings(first, now)

    # ---------------------------------------------------------------------------------------------------------- the loss

    def batch(self, scores: Mapping[str, ResponseLogps], inputs: StepInputs) -> Any:
        base = self.base.batch(scores, inputs)
        if not self.is_on:
            return base
        versions = self._versions(scores, inputs)
        if self.options.head == "ranking":
            return DegreeBatch(base, versions, None)
        features = versions.response.features
        assert features is not None
        if self.detach_features:
            features = features.detach()
        return DegreeBatch(base, versions, inputs.modules[HEAD](features))

    def _versions(self, scores: Mapping[str, ResponseLogps], inputs: StepInputs) -> Versions:
        """The versions and, of every response that has some, the response itself as degree 0."""
        graded = scores[VERSIONS]
        assert graded.row is not None and graded.weight is not None
        packed = inputs.graded.get(VERSIONS, torch.zeros_like(graded.row))
        responses = max(len(self._graded_roles), 1)
        ladder = graded.row * responses + packed // self.options.count
        parts, degrees, ladders = [graded], [packed % self.options.count], [ladder]
        for number, role in enumerate(self._graded_roles):
            row = scores[role].row
            assert row is not None
            of_response = row * responses + number
            has_versions = torch.isin(of_response, ladder)
            parts.append(_chosen(scores[role], has_versions))
            ladders.append(of_response[has_versions])
            degrees.append(torch.zeros_like(ladders[-1]))
        joined = _joined(parts)
        assert joined.weight is not None
        return Versions(torch.cat(degrees), torch.cat(ladders), joined, joined.weight)

    def terms(self, batch: Any) -> dict[str, Tensor]:
        if not self.is_on:
            return self.base.terms(batch)
        return {**_renamed(self.base.terms(batch.base)), TERM: self.options.weight * self.degree_loss(batch)}

    def weights(self, batch: Any) -> dict[str, Tensor]:
        if not self.is_on:
            return self.base.weights(batch)
        versions = batch.versions
        of_degree = versions.weight
        if self.options.head == "ranking":
            better, _, _ = versions.pairs
            of_degree = versions.weight[better]
        return {**_renamed(self.base.weights(batch.base)), TERM: of_degree}

    def loss(self, batch: Any) -> Float[Tensor, " items"]:
        """That of `base` alone: the degree loss has other items, see `terms`."""
        return self.base.loss(batch.base if self.is_on else batch)

    def degree_loss(self, batch: DegreeBatch) -> Float[Tensor, " items"]:
        """The loss of each version (with head=ranking: of each pair of versions), before the weight."""
        degree = batch.versions.degree
        if batch.logits is None:
            better, worse, _ = batch.versions.pairs
            log_ratio = batch.versions.response.log_ratio
            return functional.softplus(-self.options.ranking_beta * (log_ratio[better] - log_ratio[worse]))
        if self.options.head == "softmax":
            return functional.cross_entropy(batch.logits, degree, reduction="none")
        thresholds = torch.arange(self.options.count - 1, device=degree.device)
        is_above = (degree[:, None] > thresholds).to(batch.logits.dtype)
        return functional.binary_cross_entropy_with_logits(batch.logits, is_above, reduction="none").mean(-1)

    def predicted(self, logits: Float[Tensor, "versions outputs"]) -> Int[Tensor, " versions"]:
        """The degree that the head's outputs say."""
        return logits.argmax(-1) if self.options.head == "softmax" else (logits > 0).sum(-1)

    def quality(self, values: Mapping[str, float]) -> float:
        return self.base.quality(values)

    def implicit_reward(self, response: ResponseLogps) -> Float[Tensor, " items"]:
        return self.base.implicit_reward(response)

    @torch.no_grad()
    def metrics(self, batch: Any) -> dict[str, Any]:
        """Those of `base`, and over the versions:

        `degree_accuracy`: share of versions whose degree the head says. `degree_correlation`: Kendall's tau between the
        implicit reward of `base` and how little was removed, a mean over graded responses: 1 where the reward falls
        from each degree to the next.
        """
        if not self.is_on:
            return self.base.metrics(batch)
        values = dict(self.base.metrics(batch.base))
        versions = batch.versions
        if batch.logits is not None:
            is_right = (self.predicted(batch.logits) == versions.degree).to(versions.weight.dtype)
            values["degree_accuracy"] = (is_right, versions.weight)
        if self._ranks_by_reward:
            better, worse, share = versions.pairs
            reward = self.base.implicit_reward(versions.response)
            values["degree_correlation"] = ((reward[better] - reward[worse]).sign(), share * versions.weight[better])
        return values


def with_degrees(objective: Objective, options: DegreeOptions, *, extractor: Extractor | None = None) -> Objective:
    """`objective` with the degree loss beside it; itself where the weight is 0.

    `extractor`: a function of your own from a text to its key phrases. Raises OptionError for an objective that is not
    on pairs or feedback.
    """
    joined = WithDegrees(objective, options, extractor)
    return joined if joined.is_on else objective


def _renamed(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A term called `loss` would be taken for the whole."""
    return {"alignment" if name == "loss" else name: value for name, value in values.items()}


def _chosen(response: ResponseLogps, mask: Tensor) -> ResponseLogps:
    def part(values: Tensor | None) -> Any:
        return None if values is None else values[mask]

    return ResponseLogps(
        response.policy[mask],
        response.tokens[mask],
        part(response.reference),
        features=part(response.features),
        weight=part(response.weight),
        row=part(response.row),
    )


def _joined(parts: Sequence[ResponseLogps]) -> ResponseLogps:
    """Responses of several roles one after another; what one of them lacks, the whole lacks."""

    def together(name: str) -> Any:
        values = [getattr(part, name) for part in parts]
        return None if any(value is None for value in values) else torch.cat(values)

    return ResponseLogps(
        torch.cat([part.policy for part in parts]),
        torch.cat([part.tokens for part in parts]),
        together("reference"),
        features=together("features"),
        weight=together("weight"),
        row=together("row"),
    )


def _notes(graded: GradedRows) -> tuple[str, ...]:
    lines = []
    if graded.statistics is not None:
        found = graded.statistics
        lines.append(
            f"degrees: {found.with_ladder} of {found.responses} responses have a ladder ({found.share:.0%}; "
            f"{found.phrases:.1f} key phrases each)"
        )
    if graded.given:
        lines.append(f"degrees: {graded.given} rows bring their own")
    return tuple(lines)


def _facts(graded: GradedRows) -> dict[str, Any]:
    built = None if graded.statistics is None else graded.statistics.as_dict()
    return {"built": built, "rows_with_own_degrees": graded.given}


@dataclass(frozen=True)
class _Artefacts:
    """Writes the ladders and the stop words beside what `base` writes: other stop words would be other labels."""

    graded: GradedRows
    options: DegreeOptions
    base: Prepared

    def __call__(self, folder: Path) -> None:
        if self.base.save is not None:
            self.base.save(folder)
        write_ladders(folder / "ladders.jsonl", self.graded.ladders)
        words = sorted(load_stop_words(self.options.stop_words))
        write_atomic(folder / "stop_words.txt", "".join(f"{word}\n" for word in words))
