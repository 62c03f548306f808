"""Rows of different roles in one step: its loss and gradient do not depend on micro-batches, padding or processes."""

from __future__ import annotations

import copy
import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from paperworks.language.data import Dataset, Forget, Preference, Retain, Scored
from paperworks.language.degrees.options import DegreeOptions
from paperworks.language.items import MISMATCHED, Items, tokenise
from paperworks.language.logprobs import Method, Tree
from paperworks.language.objectives import make
from paperworks.language.objectives.degrees import with_degrees
from paperworks.language.objectives.objective import Objective, ResponseLogps, StepInputs
from paperworks.language.objectives.unlearning import UnlearningObjective
from paperworks.language.policy import LoraOptions, Policy
from paperworks.language.reference_scores import Reference
from paperworks.language.step_losses import StepLosses
from paperworks.language.testbeds.reviews import generate_reviews
from paperworks.language.tiny import TinySpec, fresh_policy
from paperworks.language.train_options import TrainOptions
from paperworks.language.training import train
from paperworks.language.unlearning.data import assemble
from paperworks.language.vocabulary import VocabularyHead

REVIEWS = [(row.prompt, row.response) for row in generate_reviews(16, 5)]


def moved(start: Policy) -> Policy:
    """The same policy some way from its start."""
    model = copy.deepcopy(start.model)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=draw)
    return Policy(model, start.tokenizer, name="moved")


@pytest.fixture(scope="module")
def start(tokenizer: Any) -> Policy:
    return fresh_policy(TinySpec(layers=2, width=32, heads=2, context=256), tokenizer)


@pytest.fixture(scope="module")
def policy(start: Policy) -> Policy:
    return moved(start)


def plain_reference(start: Policy, items: Items, objective: Objective) -> Reference:
    """What the start says about each row and role, one response at a time by the padded forward."""

    def of(row: int, role: str, what: str) -> Tensor | None:
        item = items.items[row]
        parts = []
        for response in item.responses.get(role, ()):
            with torch.no_grad():
                output = start.model(torch.tensor([[*item.prompt, *response]]), output_hidden_states=True)
            at = slice(len(item.prompt) - 1, len(item.prompt) - 1 + len(response))
            logps = output.logits[0, at].log_softmax(-1).gather(1, torch.tensor(response)[:, None]).squeeze(1)
            parts.append(logps if what == "tokens" else output.hidden_states[-1][0, at])
        return torch.cat(parts) if parts else None

    rows = range(len(items))
    return Reference(
        {role: [of(row, role, "tokens") for row in rows] for role in objective.reference_roles},
        {role: [of(row, role, "hidden") for row in rows] for role in objective.kl_roles},
        VocabularyHead.of(start.model),
    )


# ------------------------------------------------------------------------------------------------------- the same numbers

FORGET = [
    Forget(prompt, response, alternative=" I do not know." + " Sorry." * (n % 3), weight=1.0 + n % 2)
    for n, (prompt, response) in enumerate(REVIEWS[:5])
]
RETAIN = [Retain(prompt, response, weight=1.0 + n % 3) for n, (prompt, response) in enumerate(REVIEWS[5:9])]
SCORED = [
    Scored(prompt, response, reward=0.5, advantage=0.1 * n - 0.1, weight=1.0 + n % 2)
    for n, (prompt, response) in enumerate(REVIEWS[:7])
]
PAIRS = [
    Preference(prompt, response if n != 3 else " the", other + " No.", weight=1.0 + n % 2)  # no key phrase in row 3
    for n, ((prompt, response), (_, other)) in enumerate(zip(REVIEWS[:7], REVIEWS[8:15], strict=True))
]


def degrees(name: str, **options: Any) -> tuple[Objective, Sequence[Any]]:
    return with_degrees(make(name), DegreeOptions(weight=0.5, **options)), PAIRS


def unlearning(name: str, **options: Any) -> tuple[Objective, Sequence[Any]]:
    objective = make(name, options)
    assert isinstance(objective, UnlearningObjective)
    return objective, assemble(Dataset(FORGET), Dataset(RETAIN), None, seed=0, objective=objective).rows


CASES: dict[str, tuple[Objective, Sequence[Any]]] = {
    **{name: unlearning(name) for name in ("npo-rt", "npo-kl", "idk", "dpo-idk-rt", "kto-idk-rt", "ga-forget-kl")},
    "kto-idk": unlearning("kto-idk"),
    "npo-kl on both": unlearning("npo-kl", kl_on="both", retain_weight=0.5),
    "a-lol-seq": (make("a-lol-seq"), SCORED),
    "dpo with degrees": degrees("dpo"),
    "dpo with degrees of both": degrees("dpo", source="both", head="ordinal"),
    "simpo with ranked degrees": degrees("simpo", head="ranking"),
}


@dataclass(frozen=True)
class Case:
    """A step ready to be taken: what it is on, and the numbers that it must have."""

    objective: Objective
    items: Items
    reference: Reference
    rows: list[int]
    heads: dict[str, nn.Module]


def case_of(start: Policy, name: str) -> Case:
    objective, rows = CASES[name]
    dataset = Dataset(tuple(rows))
    if not isinstance(rows[0], Scored):  # those have their advantages already
        prepared = objective.prepare(dataset, start, seed=0)
        objective, dataset = prepared.objective, prepared.dataset
    read = tuple(dict.fromkeys((*objective.roles, *objective.reference_roles)))
    items = tokenise(dataset, start, read, numbers=objective.numbers)
    everything = list(range(len(items)))
    order = [*everything[::2], *everything[1::2]]
    if items.companions:
        order.append(order[-1])  # few rows to keep come more than once in a step
    torch.manual_seed(0)
    return Case(objective, items, plain_reference(start, items, objective), order, objective.modules(start))


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, start: Policy) -> Case:
    return case_of(start, request.param)


Numbers = tuple[dict[str, float], dict[str, Tensor]]


def step(
    policy: Policy,
    case: Case,
    micro_batch: int,
    *,
    method: Method = "packed",
    rows: Sequence[int] | None = None,
    over_processes: Callable[[Tensor], Tensor] = lambda values: values,
) -> Numbers:
    """The means of the step, and the gradient of every parameter of model and heads."""
    policy = Policy(copy.deepcopy(policy.model), policy.tokenizer)
    policy.__dict__["method"] = method
    heads = copy.deepcopy(case.heads)
    losses = StepLosses(policy, case.objective, TrainOptions(micro_batch=micro_batch), over_processes, heads)
    means = losses.means(case.items, case.rows if rows is None else rows, case.reference, backward=True)
    parameters = nn.ModuleDict({"model": policy.model, **heads}).named_parameters()
    return means, {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in parameters}


def assert_equal(found: Numbers, wanted: Numbers) -> None:
    assert found[0] == pytest.approx(wanted[0], rel=1e-4, abs=2e-5)
    assert found[1].keys() == wanted[1].keys()
    for name, gradient in wanted[1].items():
        torch.testing.assert_close(found[1][name], gradient, atol=2e-4, rtol=2e-3, msg=name)


@pytest.fixture(scope="module")
def wanted(policy: Policy, case: Case) -> Numbers:
    """Of the step in one micro-batch."""
    found = step(policy, case, 100)
    assert found[0]["loss"] != 0
    assert all(bool(gradient.any()) for name, gradient in found[1].items() if not name.startswith("model"))
    return found


@pytest.mark.parametrize("micro_batch", [1, 2, 5])
def test_micro_batches_change_neither_loss_nor_gradient(
    policy: Policy, case: Case, wanted: Numbers, micro_batch: int
) -> None:
    assert_equal(step(policy, case, micro_batch), wanted)


@pytest.mark.parametrize("micro_batch", [2, 100])
def test_the_padded_path_changes_neither_loss_nor_gradient(
    policy: Policy, case: Case, wanted: Numbers, micro_batch: int
) -> None:
    assert_equal(step(policy, case, micro_batch, method="padded"), wanted)


class Processes:
    """Stands in for processes that sum tensors: threads that wait for each other at every sum."""

    def __init__(self, count: int) -> None:
        self.parts: list[Tensor | None] = [None] * count
        self.barrier = threading.Barrier(count, timeout=20)

    def of(self, process: int) -> Callable[[Tensor], Tensor]:
        def summed(values: Tensor) -> Tensor:
            self.parts[process] = values
            self.barrier.wait()
            total = torch.stack([part for part in self.parts if part is not None]).sum(0)
            self.barrier.wait()
            return total

        return summed

    def run(self, take: Callable[[int, Callable[[Tensor], Tensor]], Numbers]) -> list[Numbers]:
        found: list[Any] = [None] * len(self.parts)

        def work(process: int) -> None:
            try:
                found[process] = take(process, self.of(process))
            except Exception as error:
                found[process] = error
                self.barrier.abort()

        threads = [threading.Thread(target=work, args=(process,)) for process in range(len(found))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for one in found:
            if isinstance(one, Exception) and not isinstance(one, threading.BrokenBarrierError):
                raise one
        return found


@pytest.mark.parametrize("share", ["every other row", "all or none"])
def test_processes_are_one_even_where_one_has_no_rows(policy: Policy, case: Case, wanted: Numbers, share: str) -> None:
    mine = {"every other row": [case.rows[::2], case.rows[1::2]], "all or none": [case.rows, []]}[share]
    processes = Processes(2)
    found = processes.run(lambda process, summed: step(policy, case, 3, rows=mine[process], over_processes=summed))
    assert found[0][0] == found[1][0]
    together = {name: gradient + found[1][1][name] for name, gradient in found[0][1].items()}
    assert_equal((found[0][0], together), wanted)
    if share == "all or none":
        assert not any(bool(gradient.any()) for gradient in found[1][1].values())


# --------------------------------------------------------------------------------------------------- what a batch is given


@dataclass(frozen=True)
class Probe(Objective):
    """Remembers what it was given."""

    name: ClassVar[str] = "probe"
    needs_tokens: ClassVar[bool] = True
    numbers: ClassVar[tuple[str, ...]] = ("margin",)
    seen: Any = None

    @property
    def roles(self) -> tuple[str, ...]:
        return ("chosen", "base", "degrees")

    @property
    def kl_roles(self) -> tuple[str, ...]:
        return ("base",)

    @property
    def feature_roles(self) -> tuple[str, ...]:
        return ("degrees",)

    def batch(self, scores: Any, inputs: StepInputs) -> Any:
        self.seen.append((scores, inputs))
        return scores, inputs

    def loss(self, batch: Any) -> Tensor:
        return batch[0]["chosen"].policy

    def weights(self, batch: Any) -> dict[str, Tensor]:
        return {"loss": batch[1].weight}


RAGGED = [
    Preference("Once", " a.", " b.", weight=2.0, base=(" and", " or so", " the end of it"), margin=0.5),
    Preference("Twice in a row", " a.", " c."),
    Preference("Three", " d.", " e.", degrees=(("d", 1), ("", 2)), base=(" d",)),  # type: ignore[arg-type]
]


@pytest.fixture
def given(policy: Policy, start: Policy) -> Callable[[list[int]], tuple[dict[str, ResponseLogps], StepInputs, Items]]:
    """What the objective is given for these rows."""
    from paperworks.language.data.schemas import Graded

    rows = [copy.copy(row) for row in RAGGED]
    object.__setattr__(rows[2], "degrees", tuple(Graded(*pair) for pair in RAGGED[2].degrees))

    def take(chosen: list[int]) -> tuple[dict[str, ResponseLogps], StepInputs, Items]:
        objective = Probe(seen=[])
        items = tokenise(Dataset(tuple(rows)), policy, objective.roles, numbers=objective.numbers)
        losses = StepLosses(policy, objective, TrainOptions(micro_batch=10), lambda values: values)
        losses.means(items, chosen, plain_reference(start, items, objective), backward=False)
        scores, inputs = objective.seen[-1]
        return scores, inputs, items

    return take


def test_scores_of_a_role_are_flat_and_say_their_rows(given: Any, policy: Policy) -> None:
    scores, inputs, items = given([2, 0, 1])
    of = [items.items[row] for row in (2, 0, 1)]
    assert scores["chosen"].row.tolist() == [0, 1, 2]
    assert scores["base"].row.tolist() == [0, 1, 1, 1]
    assert scores["degrees"].row.tolist() == [0, 0]
    assert inputs.weight.tolist() == [1.0, 2.0, 1.0]
    assert scores["base"].weight.tolist() == [1.0, 2.0, 2.0, 2.0]
    assert inputs.graded["degrees"].tolist() == [1, 2]
    assert inputs.numbers["margin"].isnan().tolist() == [True, False, True]
    for role, found in scores.items():
        responses = [(item.prompt, response) for item in of for response in item.responses.get(role, ())]
        alone = torch.cat([policy.token_logps([Tree(prompt, [response])]).sums() for prompt, response in responses])
        torch.testing.assert_close(found.policy.detach(), alone, atol=1e-4, rtol=1e-5)
        assert found.tokens.tolist() == [len(response) for _, response in responses]


def test_token_scores_add_up_to_the_sums(given: Any) -> None:
    for role, found in given([1, 2, 0])[0].items():
        by_token = found.by_token
        torch.testing.assert_close(by_token.summed(by_token.policy), found.policy, msg=role)
        torch.testing.assert_close(by_token.summed(by_token.reference), found.reference, msg=role)
        assert torch.equal(by_token.summed(torch.ones_like(by_token.policy)), found.tokens)
        assert by_token.response.tolist() == sorted(by_token.response.tolist())


def test_only_the_roles_named_have_divergences_and_features(given: Any, policy: Policy, start: Policy) -> None:
    scores, _, items = given([0, 1, 2])
    assert [role for role, found in scores.items() if found.vocabulary_kl is not None] == ["base"]
    assert [role for role, found in scores.items() if found.features is not None] == ["degrees"]
    prompt, responses = items.items[0].prompt, items.items[0].responses["base"]
    for number, response in enumerate(responses):
        plain = plain_kl(start, policy, prompt, response).sum()
        torch.testing.assert_close(scores["base"].vocabulary_kl[number].detach(), plain, atol=1e-4, rtol=1e-4)
    last = items.items[2]
    for number, response in enumerate(last.responses["degrees"]):
        with torch.no_grad():
            alone = policy.scores([Tree(last.prompt, [response])], keep_hidden=True).features()[0]
        torch.testing.assert_close(scores["degrees"].features[number].detach(), alone, atol=1e-5, rtol=1e-4)


def test_a_role_may_be_empty(given: Any) -> None:
    scores, inputs, _ = given([1])
    for role in ("base", "degrees"):
        assert scores[role].policy.shape == scores[role].reference.shape == scores[role].row.shape == (0,)
        assert scores[role].by_token.policy.shape == (0,)
    assert scores["base"].vocabulary_kl.shape == (0,) and scores["degrees"].features.shape[0] == 0
    assert inputs.graded.get("degrees", torch.zeros(0)).shape == (0,)


def plain_kl(start: Policy, policy: Policy, prompt: Sequence[int], response: Sequence[int]) -> Tensor:
    """KL(start || policy) at each token of a response, from the models' own logits."""
    ids, at = torch.tensor([[*prompt, *response]]), slice(len(prompt) - 1, len(prompt) - 1 + len(response))
    with torch.no_grad(), start.acting():
        log_p = start.model(ids).logits[0, at].log_softmax(-1)
    with torch.no_grad(), policy.acting():
        log_q = policy.model(ids).logits[0, at].log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


# -------------------------------------------------------------------------------------------------- means over whole steps


@dataclass(frozen=True)
class Compares(Probe):
    """Wants the mean log-ratio of a role that only some rows have."""

    step_kl_role: ClassVar[str | None] = "base"


@dataclass(frozen=True)
class ComparesMismatched(Probe):
    """Wants the mean log-ratio of other rows' responses."""

    step_kl_role: ClassVar[str | None] = MISMATCHED


@pytest.mark.parametrize("micro_batch", [1, 2, 10])
@pytest.mark.parametrize("kind", [Compares, ComparesMismatched])
def test_the_step_kl_is_one_mean_over_the_whole_step(
    kind: type[Probe], micro_batch: int, policy: Policy, start: Policy
) -> None:
    rows = [Preference(row.prompt, row.chosen, row.rejected, base=row.base, weight=row.weight) for row in RAGGED]
    objective = kind(seen=[])
    role = objective.step_kl_role
    assert role is not None
    mismatched = role == MISMATCHED
    items = tokenise(Dataset(tuple(rows)), policy, objective.roles, mismatched=mismatched)
    losses = StepLosses(policy, objective, TrainOptions(micro_batch=micro_batch), lambda values: values)
    means = losses.means(items, [0, 2, 1], plain_reference(start, items, objective), backward=False)
    ratios = [
        float(policy.token_logps([tree]).sums() - start.token_logps([tree]).sums())
        for item in items.items
        for response in item.responses.get(role, ())
        for tree in [Tree(item.prompt, [response])]
    ]
    assert len(ratios) == (3 if mismatched else 4)
    wanted = sum(ratios) / len(ratios)
    assert means["kl_estimate"] == pytest.approx(wanted, abs=1e-4) and abs(wanted) > 0.01
    for _, inputs in objective.seen:
        assert float(inputs.step_kl) == pytest.approx(wanted, abs=1e-4) and not inputs.step_kl.requires_grad


def test_the_step_kl_is_over_all_processes(policy: Policy, start: Policy) -> None:
    case = case_of(start, "kto-idk")
    alone = step(policy, case, 100)[0]["kl_estimate"]
    parts = [case.rows[:2], case.rows[2:]]
    found = Processes(2).run(lambda process, summed: step(policy, case, 1, rows=parts[process], over_processes=summed))
    assert [means["kl_estimate"] for means, _ in found] == pytest.approx([alone, alone], abs=1e-5)


def test_training_reads_a_role_that_is_only_compared_with(start: Policy, tokenizer: Any) -> None:
    """kto-idk scores no alternative answer with gradient; its point of comparison is their mean log-ratio all the same."""
    objective, rows = CASES["kto-idk"]
    assert "alternative" not in objective.roles
    policy = Policy(copy.deepcopy(start.model), tokenizer)
    at: list[tuple[float, float]] = []

    def mean_log_ratio() -> float:
        trees = [Tree(policy.encode_prompt(row.prompt), [policy.encode_response(row.alternative)]) for row in rows]
        return float((policy.token_logps(trees).sums() - start.token_logps(trees).sums()).mean())

    def on_step(step: int, steps: int, values: Any) -> None:
        if step:
            at.append((values["kl_estimate"], mean_log_ratio()))

    options = TrainOptions(steps=3, batch_size=len(rows), learning_rate=1e-2, warmup=0.0)
    train(policy, objective, Dataset(tuple(rows)), options, on_step=on_step)
    assert at[0][0] == pytest.approx(0.0, abs=1e-5)
    for (_, after), (before, _) in itertools.pairwise(at):  # a step's estimate is of the weights it began with
        assert before == pytest.approx(after, abs=1e-4) and abs(before) > 0.01


# ------------------------------------------------------------------------------------------------ divergence from the start


@pytest.mark.parametrize("kind", ["full weights", "fresh adapters", "adapters trained before"])
def test_the_divergence_is_from_the_start_of_training(kind: str, tokenizer: Any) -> None:
    policy = fresh_policy(TinySpec(layers=2, width=32, heads=2, context=256), tokenizer)
    rows = Dataset((*FORGET, *RETAIN))
    options = TrainOptions(steps=3, batch_size=4, learning_rate=1e-2, select="last")
    if kind != "full weights":
        policy = policy.with_lora(LoraOptions(rank=2))
    if kind == "adapters trained before":
        train(policy, make("ga"), Dataset(tuple(FORGET)), options)
    start = Policy(copy.deepcopy(policy.model), tokenizer)
    objective = make("npo-kl", {"kl_on": "both"})
    result = train(policy, objective, rows, options, held_out=rows)
    assert result.history[0]["kl_per_token"] == pytest.approx(0.0, abs=1e-6)
    pairs = [(row, row.forget) for row in FORGET] + [(row, row.retain) for row in RETAIN]
    total, tokens = 0.0, 0.0
    for row, text in pairs:
        response = policy.encode_response(text)
        total += row.weight * float(plain_kl(start, policy, policy.encode_prompt(row.prompt), response).sum())
        tokens += row.weight * len(response)
    assert result.history[-1]["kl_per_token"] == pytest.approx(total / tokens, rel=1e-3, abs=1e-5)
    assert total / tokens > 1e-4
