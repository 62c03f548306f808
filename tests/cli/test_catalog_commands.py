"""`list`, `show` and `search` on the shipped cards: what a person and what a program reads."""

import json
import re

import pytest

from paperworks.catalog import Evidence, Recorded, Verdict, evidence, index
from paperworks.cli import layout
from paperworks.cli.main import main


@pytest.fixture(autouse=True)
def fresh_catalog(tmp_path, monkeypatch):
    """A home, results and papers of their own: rdpo is usable, recorded and was run here; nothing else is."""
    monkeypatch.setenv("PAPERWORKS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    (tmp_path / "results").mkdir()
    interval = {"mean": 0.25, "low": 0.1, "high": 0.4}
    claims = [
        {"text": text, "verdict": verdict, "evidence": "+0.25 [0.1, 0.4], 5 of 5 seeds", "interval": interval}
        for text, verdict in [("rDPO wins", "holds"), ("cDPO wins", "reversed"), ("clean labels help", "not shown")]
    ]
    record = {"date": "2026-02-03", "budget": "small", "seeds": {"A": [0, 1, 2, 3, 4]}, "claims": claims}
    (tmp_path / "results" / "rdpo.json").write_text(json.dumps(record))
    monkeypatch.setattr(index, "results_folder", lambda: tmp_path / "results")
    monkeypatch.setattr(index, "runs_here", lambda: {"rdpo": "2026-02-04"})
    monkeypatch.setattr(evidence, "is_usable", lambda slug: slug == "rdpo")


@pytest.fixture
def terminal(monkeypatch):
    """Standard output is a terminal of so many columns."""

    def of(columns):
        monkeypatch.setattr(layout.sys.stdout, "isatty", lambda: True)
        monkeypatch.setenv("COLUMNS", str(columns))

    return of


def output_of(capsys, *argv) -> str:
    assert main(argv) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def without_colours(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_list_in_a_pipe_is_one_aligned_line_a_paper(capsys):
    header, *lines = output_of(capsys, "list").splitlines()
    assert len(lines) == 71
    column = header.index("title")
    assert {line[column - 2 : column] for line in lines} == {"  "}
    assert all(line[column] != " " for line in lines)
    (rdpo,) = (line for line in lines if line.startswith("rdpo "))
    assert rdpo.split()[:5] == ["rdpo", "language", "2024", "2403.00409", "yes"]
    assert "1/3 claims hold, 1 reversed, run here" in rdpo
    assert "\x1b" not in header + rdpo


@pytest.mark.parametrize("columns", [80, 100, 40])
def test_list_fits_the_terminal(capsys, terminal, columns):
    terminal(columns)
    lines = without_colours(output_of(capsys, "list")).splitlines()
    assert max(map(len, lines)) <= columns


def test_list_on_a_terminal_marks_what_is_usable_and_what_was_found(capsys, terminal):
    terminal(100)
    shown = output_of(capsys, "list")
    assert "\x1b[32m✓\x1b[0m \x1b[1mrdpo" in shown
    lines = without_colours(shown).splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("✓ rdpo "))
    assert lines[place + 1].split("  ")[1] == "2024 2403.00409"
    assert "1/3 claims hold, 1 reversed, run here · " in lines[place + 1]
    assert lines[-1] == "71 papers, 1 usable here (✓); more: paperworks show SLUG"


def test_list_on_a_terminal_has_two_lines_a_paper_and_a_heading_a_wing(capsys, terminal):
    terminal(80)
    lines = without_colours(output_of(capsys, "list")).splitlines()
    assert sum(line.startswith(("  ", "✓ ")) for line in lines) == 2 * 71
    assert {"language (34)", "control (11)", "audit (6)"} <= set(lines)


def test_no_color_is_respected(capsys, terminal, monkeypatch):
    terminal(80)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in output_of(capsys, "list") + output_of(capsys, "show", "rdpo")


def test_list_filters(capsys):
    def slugs(*options):
        return {entry["slug"]: entry for entry in json.loads(output_of(capsys, "list", "--json", *options))}

    assert len(slugs()) == 71
    assert list(slugs("--usable")) == ["rdpo"]
    assert {entry["wing"] for entry in slugs("--wing", "layers").values()} == {"layers"}
    assert {entry["year"] for entry in slugs("--year", "2024").values()} == {2024}
    assert all("train" in entry["verbs"] for entry in slugs("--verb", "train").values())
    assert set(slugs("--wing", "control", "--year", "2024")) == set(slugs("--wing", "control")) & set(
        slugs("--year", "2024")
    )
    assert slugs("--year", "1999") == {}


def test_list_that_filters_all_away_says_so(capsys, terminal):
    terminal(80)
    assert output_of(capsys, "list", "--year", "1999") == "0 of 71 papers, 0 usable here; more: paperworks show SLUG\n"


def test_list_json_says_truly_what_is_known(capsys):
    (entry,) = json.loads(output_of(capsys, "list", "--usable", "--json"))
    assert entry["usable"] is True
    assert entry["experiment"]["status"] == "recorded, run here"
    assert entry["experiment"]["recorded"]["counts"] == {"holds": 1, "reversed": 1, "not shown": 1}
    assert entry["experiment"]["run_here"] == "2026-02-04"
    others = [entry for entry in json.loads(output_of(capsys, "list", "--json")) if not entry["usable"]]
    assert {entry["experiment"]["status"] for entry in others} == {"no"}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["list", "--wing", "langage"], "--wing: 'langage' is not one of the choices (did you mean 'language'?)"),
        (["list", "--verb", "trian"], "(did you mean 'train'?)"),
        (["list", "--year", "soon"], "--year: invalid int value: 'soon'"),
        (["list", "--jsn"], "unknown option --jsn (did you mean '--json'?)"),
        (["show", "rdop"], "no paper named 'rdop' (did you mean 'rdpo'?)"),
        (["search", "noise", "--limit", "0"], "--limit: expected a whole number of at least 1, got 0"),
        (["search"], "the following arguments are required: WORDS"),
    ],
)
def test_wrong_arguments_are_one_line_and_exit_2(capsys, argv, message):
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("paperworks: error: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_show_tells_everything_of_the_card(capsys):
    shown = " ".join(output_of(capsys, "show", "rdpo").split())
    card = index.Catalog.open().card("rdpo")
    texts = [card.title, card.arxiv, card.venue, card.code, card.summary, card.gives, card.mechanism, card.claim]
    texts += [card.defaults, card.data, card.sourcing.note, ", ".join(card.keywords), ", ".join(card.baselines)]
    for entry in card.published:
        texts += [entry.setting, f"{entry.metric}: {entry.figures} ({entry.source})"]
    assert [text for text in texts if text not in shown] == []


def test_show_gives_commands_and_verdicts_of_a_usable_paper(capsys):
    shown = output_of(capsys, "show", "rdpo")
    assert "\n  paperworks run rdpo\n" in shown
    assert "\n  paperworks train rdpo --model smollm2-135m --data FILE.jsonl --out my-model\n" in shown
    assert "Recorded 2026-02-03, budget small, 5 seeds:" in shown
    assert "    holds      rDPO wins\n               +0.25 [0.1, 0.4], 5 of 5 seeds\n" in shown
    assert "    reversed   cDPO wins\n" in shown
    assert "    not shown  clean labels help\n" in shown
    assert "Last finished run on this machine: 2026-02-04" in shown


def test_show_promises_no_command_for_a_paper_that_is_not_usable(capsys):
    shown = output_of(capsys, "show", "npo")
    assert "Not usable yet" in shown
    assert "paperworks run npo" not in shown
    assert "No recorded run." in shown


def test_show_says_when_a_record_is_damaged(capsys, monkeypatch):
    damaged = Evidence(Recorded(problem="results/rdpo.json is damaged"))
    monkeypatch.setattr(index.Catalog, "evidence", lambda self, slug: damaged)
    assert "Record unusable: results/rdpo.json is damaged." in output_of(capsys, "show", "rdpo")
    assert "record damaged" in output_of(capsys, "list")


@pytest.mark.parametrize("columns", [80, 60])
def test_show_fits_the_terminal(capsys, terminal, columns):
    terminal(columns)
    for slug in ("rdpo", "fisor"):
        lines = without_colours(output_of(capsys, "show", slug)).splitlines()
        assert [line for line in lines if len(line) > columns and not line.startswith("  paperworks ")] == []


def test_show_json_is_the_whole_card(capsys):
    entry = json.loads(output_of(capsys, "show", "rdpo", "--json"))
    assert entry["slug"] == "rdpo"
    assert {"mechanism", "sourcing", "published", "usable", "experiment"} <= set(entry)
    assert entry["experiment"]["recorded"]["claims"][0] == {
        "text": "rDPO wins",
        "verdict": "holds",
        "evidence": "+0.25 [0.1, 0.4], 5 of 5 seeds",
        "mean": 0.25,
        "low": 0.1,
        "high": 0.4,
    }


def test_search_finds_the_paper_first(capsys):
    assert output_of(capsys, "search", "noisy", "labels").lstrip().startswith("✓ rdpo")
    assert output_of(capsys, "search", "unlearning").lstrip().startswith("npo")


def test_search_highlights_on_a_terminal_and_fits_it(capsys, terminal):
    terminal(80)
    shown = output_of(capsys, "search", "reward", "model")
    assert re.search(r"\x1b\[1;33m[Rr]eward", shown)
    assert max(map(len, without_colours(shown).splitlines())) <= 80


def test_search_json(capsys):
    answer = json.loads(output_of(capsys, "search", "unlearning", "--json", "--limit", "1"))
    assert [hit["slug"] for hit in answer["hits"]] == ["npo"]
    assert answer["complete"] is True
    assert answer["near"] == []


def test_search_without_hits_suggests_papers(capsys):
    assert output_of(capsys, "search", "lndpo").startswith("no paper has 'lndpo'; similar: ln-dpo")
    assert output_of(capsys, "search", "qqqqqqqq") == "no paper has 'qqqqqqqq'; `paperworks list` shows all papers\n"


def test_search_says_when_no_paper_has_all_the_words(capsys):
    assert output_of(capsys, "search", "unlearning", "diffusion").startswith("No paper has all these words;")


def test_search_takes_bytes_that_are_no_text(capsys):
    assert "no paper has" in output_of(capsys, "search", "\udcff\udcfe")


@pytest.mark.parametrize("verdict", ["holds", "reversed", "not shown"])
def test_every_verdict_has_its_colour(verdict, capsys, terminal, monkeypatch):
    terminal(80)
    known = Evidence(Recorded("2026-02-03", "small", 5, (Verdict("a claim", verdict, "+1"),)))
    monkeypatch.setattr(index.Catalog, "evidence", lambda self, slug: known)
    assert re.search(rf"\x1b\[3\dm{verdict}\x1b", output_of(capsys, "show", "rdpo"))
