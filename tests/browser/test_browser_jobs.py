"""Jobs: an experiment started from its form and watched to its result, stopped and taken up again, and without scripts."""

import re

import pytest
from serving import PATIENCE

expect = pytest.importorskip("playwright.sync_api").expect
pytestmark = pytest.mark.browser
LONG = PATIENCE * 1000  # milliseconds
PAPER = "prdc"  # needs no language model, and seconds for its smoke budget
# Notes which parts of a job's page change while it is open; what is noted outlives the page.
NOTE_CHANGES = """() => {
  for (const part of ["bars", "log"]) {
    const observer = new MutationObserver(() => sessionStorage.setItem(part, "live"));
    observer.observe(document.querySelector(`.${part}`), {childList: true, subtree: true});
  }
}"""


def test_a_paper_is_found_run_watched_and_its_result_read(visit, server):
    window = visit()
    page = window.open("/")
    page.get_by_label("Search the papers").press_sequentially(PAPER)
    page.locator(f'.papers a[href="/papers/{PAPER}"]').click()
    page.get_by_role("link", name="Run the experiment").click()
    page.get_by_label("budget").select_option("smoke")
    expect(page.locator("#command-line")).to_contain_text("--budget=smoke")
    window.picture("form")
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page).to_have_url(re.compile(r"/jobs/[0-9a-f]+$"))
    page.evaluate(NOTE_CHANGES)
    expect(page.locator(".bars progress").first).to_be_visible(timeout=LONG)
    expect(page.locator(".turn")).to_have_count(0)  # it waits no longer
    window.picture("running")
    page.get_by_role("link", name="Open the run and its report").click(timeout=LONG)
    assert page.evaluate("[sessionStorage.bars, sessionStorage.log]") == [
        "live",
        "live",
    ]  # not by loading the page again
    expect(page.locator(".claims li").first).to_be_visible()
    report = page.frame_locator("iframe.report")
    page.locator("iframe.report").scroll_into_view_if_needed()
    expect(report.locator("h1").first).to_be_visible()
    expect(report.locator("svg").first).to_be_visible()
    window.picture("result")
    run = page.url.rsplit("/", 1)[1]
    window.open(f"/papers/{PAPER}")
    expect(page.locator(f'a[href="/runs/{run}"]').first).to_be_visible()
    window.open("/runs")
    expect(page.get_by_role("link", name=run).first).to_be_visible()
    window.picture("runs")


def test_a_running_job_is_cancelled_and_goes_on_to_its_end_when_resumed(visit):
    window = visit()
    page = window.open(f"/papers/{PAPER}/run?budget=small&seeds=2&arms=bc")
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.locator(".bars progress").first).to_be_visible(timeout=LONG)
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".state")).to_have_text("cancelled", timeout=LONG)
    window.picture("cancelled")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator(".state")).to_have_text("finished", timeout=LONG)
    expect(page.locator(".log")).to_contain_text("stopped;")  # what it printed before stands above what came after
    expect(page.get_by_role("link", name="Open the run and its report")).to_be_visible()
    window.picture("resumed")


def test_a_wrong_option_is_named_in_the_form_which_keeps_what_was_typed(visit):
    window = visit()
    path = f"/papers/{PAPER}/run"
    window.expect_refusal(path)
    window.expect_refusal("/api/command-line")  # asked as one types
    page = window.open(path)
    page.get_by_label("budget").select_option("smoke")
    page.get_by_label("seeds").fill("many")
    expect(page.locator("#command-line")).to_contain_text("seeds")
    page.get_by_role("button", name="Run", exact=True).click()
    problem = page.get_by_role("alert")
    expect(problem).to_contain_text("seeds")
    assert "\n" not in problem.inner_text()
    expect(page.get_by_label("seeds")).to_have_value("many")
    expect(page.get_by_label("budget")).to_have_value("smoke")
    window.picture("refused")


def test_without_scripts_a_form_becomes_a_job_that_is_loaded_again_until_its_result(visit):
    window = visit(java_script_enabled=False)
    page = window.open("/papers/c-morl/run")
    page.get_by_label("budget").select_option("smoke")
    page.get_by_role("button", name="Show the command line").click()
    expect(page.locator("#command-line")).to_contain_text("--budget=smoke")
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page).to_have_url(re.compile(r"/jobs/[0-9a-f]+$"))
    expect(page.locator(".state")).to_have_text("finished", timeout=LONG)
    window.picture("finished")
    page.get_by_role("link", name="Open the run and its report").click()
    expect(page.locator(".claims li").first).to_be_visible()
    expect(page.frame_locator("iframe.report").locator("h1").first).to_be_visible()
    window.picture("result")


def test_two_runs_are_put_side_by_side_and_deleting_one_asks_first(visit, server):
    for seeds in ("1", "2"):
        server.wait(server.start_job("c-morl", budget="smoke", seeds=seeds), "finished")
    window = visit()
    page = window.open("/runs")
    boxes = page.get_by_label(re.compile("^Choose .* to compare"))
    boxes.nth(0).check()
    boxes.nth(1).check()
    page.get_by_role("button", name="Compare the two chosen").click()
    expect(page.get_by_role("heading", name="Two runs side by side")).to_be_visible()
    expect(page.get_by_role("table", name="Settings that differ")).to_be_visible()
    window.picture("two")
    page.go_back()
    run = page.locator("table.runs tbody th a").first.inner_text()
    page.get_by_role("link", name=run).first.click()
    page.get_by_role("link", name="Delete …").click()
    window.picture("asked")
    page.get_by_role("link", name="Keep it").click()
    assert run in [each["id"] for each in server.ask("/api/runs")["runs"]]
    page.get_by_role("link", name="Delete …").click()
    page.get_by_role("button", name="Delete").click()
    expect(page).to_have_url(re.compile(r"/runs$"))
    assert run not in [each["id"] for each in server.ask("/api/runs")["runs"]]
