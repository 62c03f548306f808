"""Reports: what is stated can be read back and counted; generators depend on the seed alone."""

from __future__ import annotations

import pytest

from paperworks.core.errors import OptionError
from paperworks.language.degrees import LadderOptions, build_ladder
from paperworks.language.testbeds import reports

PROMPT = "size large, age modern, price free, colour blue, noise quiet, state worn: report"


def test_a_prompt_lists_six_facts_of_different_attributes() -> None:
    prompts = reports.prompts(50, 0)
    for prompt in prompts:
        facts = reports.facts_in(prompt)
        assert len(facts) == len({fact.attribute for fact in facts}) == 6
        assert all(fact.value in reports.VALUES[fact.attribute] for fact in facts)
    assert len(set(prompts)) == 50


def test_both_shapes_are_read_back() -> None:
    said = reports.stated(" it has large size, we hear that there is modern age. it has large, there is size.")
    assert said == [("size", "large"), ("age", "modern")]


def test_worked_reward() -> None:
    # two right (one twice), one wrong value, one attribute that the prompt does not have: 2 - 0.5 * 2 - 0.02 * 20
    response = " it has large size, it has large size, there is modern age, it has costly price, there is round shape."
    assert len(response.split()) == 20
    assert reports.coverage(PROMPT, response) == (2, 2)
    assert reports.gold([PROMPT], [response]) == [pytest.approx(2 - 1 - 0.4)]
    assert reports.gold([PROMPT], [""]) == [0.0]


def test_mediocre_reports_cover_about_half() -> None:
    found = [reports.coverage(*report) for report in reports.generate_reports(400, 0)]
    correct = sum(each.correct for each in found) / 400
    wrong = sum(each.wrong for each in found) / 400
    assert 2.3 < correct < 2.8 and 0.3 < wrong < 0.6
    assert {each.correct + each.wrong for each in found} == {1, 2, 3, 4, 5}


def test_reports_without_errors_are_right() -> None:
    assert all(reports.coverage(*report).wrong == 0 for report in reports.generate_reports(50, 0, errors=0.0))


def test_the_first_ones_do_not_depend_on_how_many() -> None:
    assert reports.generate_reports(3, 7) == reports.generate_reports(9, 7)[:3] != reports.generate_reports(3, 8)
    assert reports.prompts(3, 7) == reports.prompts(9, 7)[:3]


def test_key_phrases_are_what_states_facts() -> None:
    for report in reports.generate_reports(60, 1, errors=0.0):
        ladder = build_ladder(report.response, LadderOptions())
        if ladder is None:
            continue
        covered = [reports.coverage(report.prompt, version.text).correct for version in ladder.versions]
        assert covered == sorted(covered, reverse=True) and covered[-1] == 0 < covered[0]


def test_no_value_belongs_to_two_attributes_and_no_word_to_two_kinds() -> None:
    words = [*reports.VALUES, *(value for values in reports.VALUES.values() for value in values)]
    assert len(set(words)) == len(words)


@pytest.mark.parametrize("name", ["errors", "filler"])
def test_shares_out_of_range(name: str) -> None:
    with pytest.raises(OptionError, match=f"option {name}=1.5: expected a share"):
        reports.generate_reports(1, 0, **{name: 1.5})
