"""The protocol on a model: what a plain loop gives, whatever is batched with what; rows it cannot use."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from paperworks.core.errors import DataError, ModelError, OptionError
from paperworks.language.data import Dataset
from paperworks.language.data.schemas import QuestionAnswer
from paperworks.language.policy import Policy
from paperworks.language.unlearning.logs import log_of
from paperworks.language.unlearning.measures import model_utility
from paperworks.language.unlearning.protocol import UnlearningOptions, UnlearningSets, evaluate_unlearning
from paperworks.language.unlearning.rouge import rouge_l_recall

Make = Callable[..., Dataset[QuestionAnswer]]
QUICK = UnlearningOptions(max_new_tokens=6)


def plain_loss(policy: Policy, prompt: Any, answer: Any) -> float:
    """Nats a token, the end token included, by the model's own forward on one row."""
    start, ids = policy.encode_prompt(prompt), policy.encode_response(answer)
    assert ids[-1] == policy.tokenizer.eos_token_id
    with torch.no_grad():
        logps = policy.base(input_ids=torch.tensor([[*start, *ids]])).logits[0].log_softmax(-1)
    return -float(logps[len(start) - 1 : -1].gather(1, torch.tensor(ids)[:, None]).mean())


def test_losses_are_those_of_every_answer_alone(any_decoder: Policy, sets: UnlearningSets) -> None:
    report = evaluate_unlearning(any_decoder, sets, UnlearningOptions(rouge=False))
    for name, rows in sets.named().items():
        for row, item in zip(rows, report.sets[name].items, strict=True):
            assert item.nll == pytest.approx(plain_loss(any_decoder, row.prompt, row.answer), abs=1e-4)
            paraphrase = row.paraphrased_answer or row.answer
            assert item.paraphrased_nll == pytest.approx(plain_loss(any_decoder, row.prompt, paraphrase), abs=1e-4)
            wrong = [plain_loss(any_decoder, row.prompt, answer) for answer in row.perturbed_answer]
            assert item.perturbed_nll == pytest.approx(wrong, abs=1e-4)
            assert item.tokens == len(any_decoder.encode_response(row.answer))


def test_answers_are_the_models_greedy_ones(small_policy: Policy, sets: UnlearningSets) -> None:
    report = evaluate_unlearning(small_policy, sets, QUICK)
    for row, item in zip(sets.forget, report.forget.items, strict=True):
        prompt = torch.tensor([small_policy.encode_prompt(row.prompt)])
        out = small_policy.base.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=6, do_sample=False
        )
        assert item.generated == small_policy.decode(out[0, prompt.shape[1] :].tolist())
        assert item.rouge == rouge_l_recall(row.answer, item.generated)


def test_the_other_questions_change_nothing(small_policy: Policy, sets: UnlearningSets) -> None:
    together = evaluate_unlearning(small_policy, sets, QUICK)
    alone = evaluate_unlearning(small_policy, UnlearningSets(sets.forget.with_rows(sets.forget.rows[2:3])), QUICK)
    first, second = together.forget.items[2], alone.forget.items[0]
    assert first.generated == second.generated
    assert first.nll == pytest.approx(second.nll, abs=1e-5)
    assert first.perturbed_nll == pytest.approx(second.perturbed_nll, abs=1e-5)


def test_utility_is_over_the_nine_numbers(small_policy: Policy, sets: UnlearningSets) -> None:
    report = evaluate_unlearning(small_policy, sets, QUICK)
    wanted = [
        report.sets[name].mean(measure)
        for name in ("retain", "real_authors", "world_facts")
        for measure in ("probability", "rouge", "truth_ratio")
    ]
    assert list(report.utility_parts.values()) == wanted
    assert report.utility == model_utility(wanted)
    assert not any("comparable" in note for note in report.notes)


def test_with_sets_missing_the_report_says_what_went_in(small_policy: Policy, sets: UnlearningSets) -> None:
    report = evaluate_unlearning(small_policy, UnlearningSets(sets.forget, sets.retain), UnlearningOptions(rouge=False))
    assert set(report.utility_parts) == {"retain_probability", "retain_truth_ratio"}
    assert "over 2 of the protocol's 9 numbers, from retain set (probability, truth ratio)" in report.notes[0]
    alone = evaluate_unlearning(small_policy, UnlearningSets(sets.forget), UnlearningOptions(rouge=False))
    assert alone.utility is None
    assert "utility" not in alone.values


def test_against_its_own_log_the_forget_quality_is_1(small_policy: Policy, sets: UnlearningSets) -> None:
    log = log_of(evaluate_unlearning(small_policy, sets, UnlearningOptions(rouge=False)))
    report = evaluate_unlearning(small_policy, sets, UnlearningOptions(rouge=False), retain_log=log)
    assert report.values["forget_quality"] == 1.0
    assert any("fewer than 20 items" in note for note in report.notes)


def test_the_first_rows_are_used(small_policy: Policy, sets: UnlearningSets) -> None:
    report = evaluate_unlearning(small_policy, sets, UnlearningOptions(rouge=False, limit=2))
    assert {len(measured) for measured in report.sets.values()} == {2}
    assert report.forget.items[1].where == "people.jsonl:2"


def test_the_other_mean_of_wrong_answers_is_an_option(small_policy: Policy, sets: UnlearningSets) -> None:
    options = UnlearningOptions(rouge=False)
    geometric = evaluate_unlearning(small_policy, sets, options)
    arithmetic = evaluate_unlearning(small_policy, sets, dataclasses.replace(options, averaging="arithmetic"))
    assert (arithmetic.forget.log_s < geometric.forget.log_s).all()


def test_the_model_is_left_as_it_was(small_policy: Policy, sets: UnlearningSets) -> None:
    small_policy.model.train()
    evaluate_unlearning(small_policy, sets, QUICK)
    assert small_policy.model.training


def test_an_encoder_decoder_model_is_evaluated_too(encoder_decoder: Policy, questions: Make) -> None:
    report = evaluate_unlearning(encoder_decoder, UnlearningSets(questions(2)), QUICK)
    assert 0 < report.forget.mean("probability") < 1


# ------------------------------------------------------------------------------------------------------------- bad input


def one(row: QuestionAnswer, **change: Any) -> UnlearningSets:
    return UnlearningSets(Dataset((row, dataclasses.replace(row, **change))))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"perturbed_answer": ()}, "people.jsonl:1: field 'perturbed_answer': missing; expected a list of wrong answers"),
        ({"perturbed_answer": (" A pilot.", "A baker. ")}, "'A baker. ' equals the true one"),
        ({"perturbed_answer": (" One who bakes.",)}, "equals the true one"),
        ({"perturbed_answer": (" A pilot.", " ")}, "a perturbed answer is empty"),
        ({"prompt": "word " * 400}, "people.jsonl:1: the prompt has"),
        ({"answer": " word" * 300}, "the context of the model is 256: shorten them"),
    ],
)  # fmt: skip
def test_questions_that_cannot_be_used_are_named(
    small_policy: Policy, questions: Make, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError) as error:
        evaluate_unlearning(small_policy, one(questions(1)[0], **change), QUICK)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_empty_set_is_refused(small_policy: Policy, questions: Make) -> None:
    with pytest.raises(DataError, match="the retain set is empty"):
        evaluate_unlearning(small_policy, UnlearningSets(questions(1), Dataset(())), QUICK)


def test_a_model_whose_numbers_are_none_is_refused(small_policy: Policy, questions: Make) -> None:
    with torch.no_grad():
        next(iter(small_policy.model.parameters())).fill_(float("nan"))
    with pytest.raises(ModelError, match="10 of 10 answers have no finite log-probability"):
        evaluate_unlearning(small_policy, UnlearningSets(questions(2)), QUICK)


@pytest.mark.parametrize("option", [{"limit": 0}, {"max_new_tokens": 0}, {"batch_rows": 0}])
def test_options_out_of_range_are_refused(option: dict[str, int]) -> None:
    with pytest.raises(OptionError, match="out of range"):
        UnlearningOptions(**option)
