"""The way to a paper's experiment, and what is said where there is none."""

import pytest

from paperworks import papers
from paperworks.core.errors import OptionError, RunError
from paperworks.papers import experiment_of, papers_here


@pytest.fixture
def paper(tmp_path, monkeypatch):
    """Adds a paper's file to the papers of this version."""
    monkeypatch.setattr(papers, "__path__", [*papers.__path__, str(tmp_path)])

    def add(name, source):
        (tmp_path / f"{name}.py").write_text(source)

    return add


def test_papers_of_this_version_have_experiments_of_their_slug():
    for slug in ("rdpo", "rpo", "ln-dpo"):
        assert slug in papers_here()
        assert experiment_of(slug).slug == slug


def test_hyphens_of_a_slug_are_underscores_of_its_file(paper):
    paper("some_new_paper", "EXPERIMENT = 'found'")
    assert experiment_of("some-new-paper") == "found"
    assert "some-new-paper" in papers_here()


@pytest.mark.parametrize(
    ("slug", "line"),
    [
        ("rdop", r"no paper named 'rdop' \(did you mean 'rdpo'\?\)"),
        ("RDPO", r"no paper named 'RDPO' \(did you mean 'rdpo'\?\)"),
        ("qqqqqqqq", "no paper named 'qqqqqqqq'; `paperworks list` names all"),
        ("__init__", "no paper named '__init__'"),
        ("../rdpo", "no paper named"),
        ("os.path", "no paper named"),
        ("", "no paper named ''"),
    ],
)
def test_an_unknown_slug_names_the_nearest(slug, line):
    with pytest.raises(OptionError, match=line):
        experiment_of(slug)


def test_a_paper_that_has_only_its_card_says_what_is_ready(monkeypatch):
    monkeypatch.setattr(papers, "papers_here", lambda: ["ln-dpo", "rdpo"])
    refusal = papers._not_here("npo")  # rather than experiment_of: one day there will be an npo
    assert str(refusal) == (
        "npo: its experiment is not in this version yet, only its card (`paperworks show npo`); "
        "ready to run: ln-dpo, rdpo"
    )


def test_a_file_without_an_experiment_is_a_paper_without_one(paper):
    paper("method_only", "")
    with pytest.raises(OptionError, match="no paper named 'method-only'"):
        experiment_of("method-only")


def test_a_missing_package_is_named_and_a_bug_is_not_hidden(paper):
    paper("needs_more", "import package_that_nobody_has")
    with pytest.raises(
        RunError, match="needs-more: needs the package 'package_that_nobody_has', which is not installed"
    ):
        experiment_of("needs-more")
    paper("has_a_bug", "import paperworks.not_there")
    with pytest.raises(ModuleNotFoundError, match="paperworks"):
        experiment_of("has-a-bug")
