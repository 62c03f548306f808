"""Lengths are settled once: what is cut is counted, what leaves no room is named; scoring keeps the order."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paperworks.core.errors import DataError, ModelError
from paperworks.language.data import Dataset, Demonstration, Feedback, Forget, Graded, Preference, Retain
from paperworks.language.data.schemas import Where
from paperworks.language.items import MISMATCHED, batches_by_tokens, score, tokenise
from paperworks.language.logprobs import Tree
from paperworks.language.policy import Policy

SHORT = Preference(prompt="The film", chosen=" was good.", rejected=" was bad.", where=Where("data.jsonl", 3))
LONG = Preference(prompt="The film was " * 40, chosen=" a.", rejected=" b.", where=Where("data.jsonl", 8))
PAIR = ("chosen", "rejected")


def dataset(*rows: Any) -> Dataset[Any]:
    return Dataset(rows)


def test_rows_become_the_policys_tokens(small_policy: Policy) -> None:
    items = tokenise(dataset(SHORT), small_policy, PAIR)
    item = items.items[0]
    assert list(item.prompt) == small_policy.encode_prompt("The film")
    assert [list(ids) for ids in item.responses_in()] == [
        small_policy.encode_response(t) for t in (" was good.", " was bad.")
    ]
    assert (item.weight, item.numbers, item.where) == (1.0, {}, "data.jsonl:3")
    assert items.responses == 2 and items.notes() == []


def test_weights_and_judgements_are_kept(small_policy: Policy) -> None:
    rows = dataset(Feedback("P", "yes", True, 2.0), Feedback("P", "no", False, 0.5))
    items = tokenise(rows, small_policy, ("response",), numbers=("desirable", "reward"))
    assert [(item.numbers["desirable"], item.weight) for item in items.items] == [(1.0, 2.0), (0.0, 0.5)]
    assert items.number("desirable").tolist() == [1.0, 0.0] and items.number("reward").isnan().all()


def test_a_cut_response_loses_its_end_token_and_is_counted(small_policy: Policy) -> None:
    whole = tokenise(dataset(SHORT), small_policy, PAIR).items[0]
    limit = len(whole.prompt) + len(whole.responses["chosen"][0]) - 1
    items = tokenise(dataset(SHORT), small_policy, ("chosen",), max_length=limit)
    assert items.items[0].responses["chosen"][0] == whole.responses["chosen"][0][:-1]
    assert items.cut_responses == 1
    assert items.notes() == ["100.0% of responses were cut at max_length and have no end token; raise --max-length"]


def test_a_prompt_that_leaves_no_room_is_named(small_policy: Policy) -> None:
    with pytest.raises(DataError, match=r"data\.jsonl:8: field 'prompt': the prompt has \d+ tokens.*limit .* is 10"):
        tokenise(dataset(SHORT, LONG), small_policy, PAIR, max_length=10)
    longer = Demonstration(prompt=LONG.prompt * 10, response="a", where=Where("data.jsonl", 9))
    with pytest.raises(DataError, match=r"data\.jsonl:9: .*is 256 \(the context of the model\)"):
        tokenise(dataset(longer), small_policy, ("response",))


def test_a_prompt_that_leaves_no_room_can_be_left_out(small_policy: Policy) -> None:
    items = tokenise(dataset(LONG, SHORT), small_policy, PAIR, max_length=20, long_prompts="skip")
    assert [item.where for item in items.items] == ["data.jsonl:3"]
    assert items.skipped == 1 and "1 rows were left out" in items.notes()[-1]
    with pytest.raises(DataError, match="0 rows left"):
        tokenise(dataset(LONG), small_policy, PAIR, max_length=20, long_prompts="skip")


def test_a_prompt_that_leaves_no_room_can_lose_its_front(small_policy: Policy) -> None:
    items = tokenise(dataset(LONG), small_policy, PAIR, max_length=20, long_prompts="cut")
    item = items.items[0]
    assert list(item.prompt) == small_policy.encode_prompt(LONG.prompt)[-10:]
    assert all(len(item.prompt) + len(response) <= 20 for response in item.responses_in())
    assert items.cut_prompts == 1 and items.notes()[-1] == "1 prompts were cut at their front"


def test_an_encoder_decoders_prompt_and_response_have_a_limit_each(encoder_decoder: Policy) -> None:
    whole = tokenise(dataset(SHORT), encoder_decoder, PAIR).items[0]
    limit = max(len(whole.prompt), *map(len, whole.responses_in()))
    assert tokenise(dataset(SHORT), encoder_decoder, PAIR, max_length=limit).items[0] == whole


def test_rows_may_have_different_roles_and_numbers_of_responses(small_policy: Policy) -> None:
    rows = dataset(
        Preference("P", "a", "b", base=("c", "d")),
        Preference("P", "a", "b"),
        Preference("P", "a", "b", degrees=(Graded("c", 1), Graded("d", 2))),
    )
    items = tokenise(rows, small_policy, (*PAIR, "base", "degrees")).items
    assert [list(item.responses) for item in items] == [[*PAIR, "base"], [*PAIR], [*PAIR, "degrees"]]
    assert [len(item.tree(("base", "degrees")).responses) for item in items] == [2, 0, 2]
    assert items[2].grades == {"degrees": (1, 2)}


def test_a_row_without_any_response_is_named(small_policy: Policy) -> None:
    with pytest.raises(DataError, match=r"data\.jsonl:3: no response in any of the roles base"):
        tokenise(dataset(SHORT), small_policy, ("base",))


def test_companions_come_last(small_policy: Policy) -> None:
    rows = dataset(Retain("Q", "kept"), Forget("P", "gone"), Retain("R", "kept too"))
    items = tokenise(rows, small_policy, ("forget", "retain"))
    assert [list(item.responses) for item in items.items] == [["forget"], ["retain"], ["retain"]]
    assert items.companions == 2


def test_messages_without_a_template_name_the_row(small_policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_policy.tokenizer, "chat_template", None)
    row = Demonstration(({"role": "user", "content": "Hi"},), "Hello", where=Where("chat.jsonl", 4))
    with pytest.raises(ModelError, match=r"chat\.jsonl:4: .*no chat template"):
        tokenise(dataset(row), small_policy, ("response",))


def test_mismatched_responses_are_anothers_and_fixed_by_the_seed(
    small_policy: Policy, pairs: Dataset[Preference]
) -> None:
    def drawn(seed: int) -> list[tuple[int, ...]]:
        return [
            i.responses[MISMATCHED][0] for i in tokenise(pairs, small_policy, PAIR, mismatched=True, seed=seed).items
        ]

    rows = tokenise(pairs, small_policy, PAIR).items
    found = drawn(0)
    assert sorted(map(str, found)) == sorted(str(item.responses["chosen"][0]) for item in rows)  # each response once
    own = sum(a == item.responses["chosen"][0] for a, item in zip(found, rows, strict=True))
    twice = len(rows) - len(
        {item.responses["chosen"][0] for item in rows}
    )  # only a response that occurs twice can meet itself
    assert own <= 2 * twice
    assert drawn(0) == found and drawn(1) != found


@given(st.lists(st.tuples(st.integers(1, 30), st.lists(st.integers(1, 30), min_size=1, max_size=3)), max_size=12))
@settings(max_examples=60, deadline=None)
def test_batches_hold_every_tree_once_within_the_bound(shapes: list[tuple[int, list[int]]]) -> None:
    trees = [Tree([1] * prompt, [[1] * size for size in sizes]) for prompt, sizes in shapes]
    batches = batches_by_tokens(trees, 40)
    assert sorted(i for batch in batches for i in batch) == list(range(len(trees)))
    for batch in batches:
        total = sum(len(trees[i].prompt) + sum(map(len, trees[i].responses)) for i in batch)
        assert len(batch) == 1 or total <= 40


@pytest.mark.parametrize("most_tokens", [1, 60, 100_000])
def test_scores_come_in_the_order_of_the_trees(
    small_policy: Policy, pairs: Dataset[Preference], most_tokens: int
) -> None:
    trees = [item.tree() for item in tokenise(pairs, small_policy, PAIR).items]
    sums, counts = score(small_policy, trees, most_tokens=most_tokens)
    torch.testing.assert_close(sums, small_policy.token_logps(trees).sums(), atol=1e-4, rtol=1e-5)
    assert counts.tolist() == [len(response) for tree in trees for response in tree.responses]
