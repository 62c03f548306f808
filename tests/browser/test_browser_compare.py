"""A comparison on data of one's own: a file chosen in the form, two objectives, and the report."""

import re
from pathlib import Path

import pytest
from serving import PATIENCE

expect = pytest.importorskip("playwright.sync_api").expect
pytestmark = pytest.mark.browser
SETTINGS = {"model": "tiny", "steps": "3", "seeds": "1", "max-new-tokens": "8", "eval-rows": "8", "samples": "2"}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """A file of preference pairs; what is in it does not matter here."""
    file = tmp_path_factory.mktemp("pairs") / "my pairs.jsonl"
    row = '{{"prompt": "The film {0} was", "chosen": " a joy, warm and funny {0}", "rejected": " dull and far too long {0}"}}\n'
    file.write_text("".join(row.format(number) for number in range(40)), encoding="utf-8")
    return file


def test_objectives_are_compared_on_an_uploaded_file(visit, server, pairs):
    window = visit()
    page = window.open("/compare")
    for name in ("dpo", "rdpo"):
        page.get_by_role("checkbox", name=name, exact=True).check()
    for option, value in SETTINGS.items():
        field = page.locator(f'[name="{option}"], [name="{option.replace("-", "_")}"]').first
        if not field.is_visible():
            page.locator("details", has=field).locator("summary").click()
        field.fill(value)
    page.locator('[name="reward"]').first.fill("sentiment")
    page.locator('input[type=file][name="upload-data"]').set_input_files(pairs)
    expect(page.locator("#command-line")).to_contain_text("--reward=sentiment")
    window.picture("form")
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page).to_have_url(re.compile(r"/jobs/[0-9a-f]+$"))
    command = page.locator(".command code").inner_text()
    assert re.match(r"paperworks compare dpo rdpo .*--model=tiny", command)
    stored = re.search(r"--data=(\S+/my-pairs\.jsonl)", command)[1]
    assert stored.startswith(str(server.home / "uploads"))
    assert Path(stored).read_bytes() == pairs.read_bytes()
    window.picture("watched")
    page.get_by_role("link", name="Open the run and its report").click(timeout=PATIENCE * 1000)
    page.locator("iframe.report").scroll_into_view_if_needed()
    expect(page.frame_locator("iframe.report").locator("table").first).to_contain_text("rdpo")
    window.picture("report")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the report").click()
    assert download.value.suggested_filename.endswith(".html")


def test_a_file_that_is_no_data_is_refused_in_the_form_which_keeps_what_was_chosen(visit, tmp_path):
    program = tmp_path / "program.sh"
    program.write_text("echo")
    window = visit()
    window.expect_refusal("/compare")
    window.expect_refusal("/api/command-line")
    page = window.open("/compare")
    page.get_by_role("checkbox", name="dpo", exact=True).check()
    page.locator('input[type=file][name="upload-data"]').set_input_files(program)
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("program.sh: expected a data file")
    expect(page.get_by_role("checkbox", name="dpo", exact=True)).to_be_checked()
