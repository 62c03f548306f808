import json

import pytest

from paperworks.core.errors import DataError, OptionError
from paperworks.language.testbeds import facts
from paperworks.language.testbeds.fact_banks import ATTRIBUTES


@pytest.fixture(scope="module")
def world():
    return facts.make_world(3, forget=4, retain=10, held_out=3)


def people_of(questions):
    """The questions of each person: they stand together, the one about the name first."""
    rows, size = questions.rows, len(ATTRIBUTES)
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def name_of(of_person):
    """The name: the two words with a capital that every answer to the other questions has."""
    return max(
        {" ".join(pair) for row in of_person for pair in zip(row.answer.split(), row.answer.rstrip(".").split()[1:])},
        key=lambda pair: sum(pair in row.prompt for row in of_person),
    )


def test_a_world_has_every_question_for_every_person(world) -> None:
    assert [len(part) for part in (world.forget, world.retain, world.held_out)] == [56, 140, 42]
    assert world.kept.rows == (*world.retain.rows, *world.held_out.rows)


def test_a_world_is_the_same_for_the_same_seed_only(world) -> None:
    assert facts.make_world(3, forget=4, retain=10, held_out=3) == world
    assert facts.make_world(4, forget=4, retain=10, held_out=3).forget != world.forget


def test_no_question_is_asked_twice(world) -> None:
    prompts = [row.prompt for row in (*world.forget, *world.kept)]
    assert len(set(prompts)) == len(prompts)


def test_people_to_forget_are_nowhere_else(world) -> None:
    elsewhere = " ".join(
        f"{row.prompt} {row.response}" for row in (*facts.demonstrations(world.kept), *facts.lessons(0))
    )
    for of_person in people_of(world.forget):
        family = name_of(of_person).split()[1]
        assert all(family in f"{row.prompt} {row.answer}" for row in of_person)
        assert family not in elsewhere


def test_paraphrases_say_the_same_in_other_words_and_wrong_answers_differ_from_them_in_the_fact_alone(world) -> None:
    for row in (*world.forget, *world.kept):
        assert row.answer != row.paraphrased_answer
        assert len(set(row.perturbed_answer)) == facts.WRONG_ANSWERS
        assert row.paraphrased_answer not in row.perturbed_answer
        for wrong in row.perturbed_answer:
            kept = len(_common(row.paraphrased_answer, wrong)) + len(_common(row.paraphrased_answer[::-1], wrong[::-1]))
            assert kept > 0.4 * len(wrong)


def _common(first, second):
    length = next((i for i, (a, b) in enumerate(zip(first, second)) if a != b), min(len(first), len(second)))
    return first[:length]


def test_every_wording_is_used(world) -> None:
    for number, attribute in enumerate(ATTRIBUTES):
        asked = {row.prompt.split()[0] for row in (*world.forget, *world.kept)[number :: len(ATTRIBUTES)]}
        assert len(asked) > 1 or len({question.split()[0] for question in attribute.questions}) == 1


def test_answers_follow_their_question_after_a_space(world) -> None:
    for row in (*world.forget, *world.real_authors, *world.world_facts, *facts.lessons(0, people=2).rows):
        texts = [getattr(row, "answer", None) or row.response, *getattr(row, "perturbed_answer", ())]
        assert all(text.startswith(" ") and not text.startswith("  ") for text in texts)
        assert row.prompt == row.prompt.strip()


def test_true_facts_have_one_right_and_three_wrong_answers_and_are_taught(world) -> None:
    taught = {(row.prompt, row.response) for row in facts.lessons(0).rows}
    for row in (*world.real_authors, *world.world_facts):
        assert (row.prompt, row.answer) in taught
        assert len(set(row.perturbed_answer) - {row.answer}) == facts.WRONG_FACTS


def test_rows_for_training_hold_the_questions_and_answers(world) -> None:
    pairs = [(row.prompt, row.answer) for row in world.forget]
    assert [(row.prompt, row.response) for row in facts.demonstrations(world.forget)] == pairs
    assert [(row.prompt, row.forget) for row in facts.forget_rows(world.forget)] == pairs
    assert [(row.prompt, row.retain) for row in facts.retain_rows(world.forget)] == pairs


def test_the_number_of_wrong_answers_changes_nothing_else() -> None:
    few, many = (facts.make_world(0, forget=2, retain=1, held_out=0, wrong_answers=count) for count in (2, 5))
    assert {len(row.perturbed_answer) for row in few.forget} == {2}
    assert facts.demonstrations(few.forget) == facts.demonstrations(many.forget)


@pytest.mark.parametrize("numbers", [{"forget": 0}, {"retain": 0}, {"held_out": -1}, {"retain": 400}])
def test_impossible_numbers_of_people_are_refused(numbers) -> None:
    with pytest.raises(OptionError, match="at least one to forget and to retain, at most 400"):
        facts.make_world(0, **numbers)


def test_real_files_are_read_in_both_forms(tmp_path) -> None:
    row = {
        "question": "Who?",
        "answer": "She.",
        "paraphrased_answer": "It is she.",
        "perturbed_answer": ["It is he.", "It is I."],
        "paraphrased_question": "Which person?",
    }
    plain = {"question": "Where?", "answer": "There."}
    (tmp_path / "lines.json").write_text("\n".join(map(json.dumps, (row, plain))))
    (tmp_path / "list.json").write_text(json.dumps([row, plain]))
    for name in ("lines.json", "list.json"):
        first, second = facts.load_tofu(tmp_path / name).rows
        assert (first.prompt, first.answer, first.paraphrased_answer) == ("Who?", " She.", " It is she.")
        assert first.perturbed_answer == (" It is he.", " It is I.")
        assert (second.answer, second.paraphrased_answer, second.perturbed_answer) == (" There.", "", ())


def test_a_real_file_that_is_none_names_the_line(tmp_path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"question": "Who?", "answer": "She."}\n{"question": "Where?"}\n')
    with pytest.raises(DataError, match=r"bad\.jsonl:2"):
        facts.load_tofu(tmp_path / "bad.jsonl")
