"""Progress and tables: plain lines off a terminal, nothing when quiet, names are never taken for markup."""

import io

import pytest

from paperworks.core import progress as module
from paperworks.core.progress import Progress, duration, plain_table, progress, table


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_off_a_terminal_a_line_at_most_every_few_seconds_and_one_at_the_end(monkeypatch):
    clock = iter(range(0, 100, 2))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    out = io.StringIO()
    assert list(progress(range(6), "pairs", stream=out)) == list(range(6))
    lines = out.getvalue().splitlines()
    assert 2 <= len(lines) < 6
    assert lines[-1].startswith("pairs: 6/6 (100%)")
    assert lines[-1].endswith("done")


def test_lines_say_how_much_is_left(monkeypatch):
    clock = iter([0, 10, 10, 10])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    out = io.StringIO()
    with Progress(stream=out) as shown:
        shown.bar("train", total=100).update(25, note="loss 0.5")
    assert out.getvalue() == "train: 25/100 (25%), 10 s, 30 s left, loss 0.5\n"


def test_quiet_says_nothing():
    for out in (io.StringIO(), Terminal()):
        with Progress(quiet=True, stream=out) as shown:
            shown.say("hello")
            list(shown.track([1, 2], "pairs"))
        assert out.getvalue() == ""


def test_a_terminal_shows_every_bar_with_its_own_text():
    out = Terminal()
    with Progress(stream=out) as shown:
        first, second = shown.bar("cells [red]", total=2), shown.bar("train")
        first.advance(note="[/bold] rdpo")
        second.advance(3)
        shown.say("[b]said[/b]")
        second.finish()
        first.finish()
    text = out.getvalue()
    for expected in ("cells [red]", "2/2", "train", "3/3", "[/bold] rdpo", "[b]said[/b]"):
        assert expected in text


def test_items_of_unknown_number_are_passed_on():
    out = io.StringIO()
    assert list(progress(iter("abc"), "rows", stream=out)) == ["a", "b", "c"]
    assert out.getvalue().startswith("rows: 3, ")


def test_plain_table_is_aligned():
    text = plain_table([["dpo", 0.5], ["ln-dpo", 10.25]], ["arm", "reward"], "Results", right=["reward"])
    assert text.splitlines() == [
        "Results",
        "arm     reward",
        "------  ------",
        "dpo        0.5",
        "ln-dpo   10.25",
    ]


def test_tables_print_names_as_they_are():
    for out in (io.StringIO(), Terminal()):
        table([["[red]a[/red]", 1]], ["name", "n"], "T [bold]", right=["n"], stream=out)
        assert "[red]a[/red]" in out.getvalue()
        assert "T [bold]" in out.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.42, "0.4 s"), (42.4, "42 s"), (59.7, "1 min 00 s"), (185, "3 min 05 s"), (7620, "2 h 07 min")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text
