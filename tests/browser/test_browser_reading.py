"""Reading: search as one types, a paper's page, the keyboard alone, and all of it without scripts."""

import re

import pytest

expect = pytest.importorskip("playwright.sync_api").expect
pytestmark = pytest.mark.browser
PAPER = "rdpo"


def test_the_list_answers_while_one_types_and_is_there_again_on_the_way_back(visit):
    window = visit()
    page = window.open("/")
    heading, titles = page.locator("#list-title"), page.locator(".papers h3 a")
    every = titles.count()
    page.get_by_label("Search the papers").press_sequentially("flipped labels")
    expect(heading).to_contain_text(f"of {every} papers")
    expect(page).to_have_url(re.compile(r"/\?q=flipped\+labels"))
    expect(page.locator(".snippet mark").first).to_be_visible()
    window.picture("searched")
    page.get_by_role("group", name="Runs").get_by_label("runs here").check()
    expect(page).to_have_url(re.compile(r"runs=here"))
    found = heading.inner_text()
    page.locator(f'.papers a[href="/papers/{PAPER}"]').click()
    expect(page).to_have_url(re.compile(rf"/papers/{PAPER}$"))
    page.go_back()
    expect(page.get_by_label("Search the papers")).to_have_value("flipped labels")
    expect(heading).to_have_text(found)


def test_a_papers_page_sets_its_equations_shows_its_figures_and_copies_its_commands(visit):
    window = visit()
    window.allow_clipboard()
    page = window.open(f"/papers/{PAPER}")
    equation = page.locator("math[display=block]").first
    box = equation.bounding_box()
    assert box["width"] > 50 and box["height"] > 15
    # Set as mathematics: an index stands lower and smaller than its letter, not behind it as text would.
    letter, index = (equation.locator(f"msub > :nth-child({place})").first.bounding_box() for place in (1, 2))
    assert index["y"] + index["height"] > letter["y"] + letter["height"]
    figure = page.locator("#found figure svg").first
    figure.scroll_into_view_if_needed()
    assert figure.bounding_box()["height"] > 100
    command = page.locator("#use .command").first
    command.get_by_role("button", name="Copy").click()
    expect(command.get_by_role("button")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == command.locator("code").inner_text()
    window.picture("paper")


def test_the_keyboard_alone_reaches_content_search_and_filters_and_shows_where_it_is(visit):
    page = visit().open("/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    expect(page.get_by_role("link", name="Skip to the content")).to_be_in_viewport()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Search the papers")).to_be_focused()
    assert is_outlined(page)
    first_filter = page.get_by_role("group", name="Wing").get_by_label("any")
    for _ in range(4):  # past the buttons of the search
        page.keyboard.press("Tab")
        if first_filter.evaluate("radio => radio === document.activeElement"):
            break
    expect(first_filter).to_be_focused()
    assert is_outlined(page)
    page.keyboard.press("ArrowDown")
    expect(page).to_have_url(re.compile(r"\?wing="))
    expect(page.locator("#list-title")).to_contain_text(" of ")
    assert page.evaluate("document.activeElement.name") == "wing"  # the list came anew; the keyboard is where it was


def test_without_scripts_the_list_is_searched_and_filtered_by_its_button(visit):
    window = visit(java_script_enabled=False)
    page = window.open("/")
    page.get_by_label("Search the papers").fill("noisy labels")
    page.get_by_role("button", name="Search").click()
    expect(page).to_have_url(re.compile(r"q=noisy\+labels"))
    page.get_by_role("group", name="Runs").get_by_label("runs here").check()
    page.get_by_role("button", name="Apply").click()
    expect(page).to_have_url(re.compile(r"q=noisy\+labels.*runs=here"))
    expect(page.locator("#list-title")).to_contain_text(" of ")
    window.picture("filtered")
    page.locator(".papers h3 a").first.click()
    expect(page.locator("math[display=block]").first).to_be_visible()
    page.locator("details > summary", has_text="The numbers of every arm").first.click()
    expect(page.locator("#found details[open] table").first).to_be_visible()
    expect(page.get_by_role("button", name="Copy")).to_have_count(0)  # what needs a script is not offered
    window.picture("paper")


def is_outlined(page) -> bool:
    """Whether what has the focus shows it."""
    return page.evaluate(
        "() => { const style = getComputedStyle(document.activeElement);"
        " return style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2; }"
    )
