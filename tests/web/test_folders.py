"""Files that a request may name: below the server's folders, links followed, programs never from an upload."""

from __future__ import annotations

import pytest

from paperworks.core.errors import OptionError
from paperworks.web.folders import Folders


@pytest.fixture
def place(tmp_path):
    for name in ("runs", "data", "uploads", "secret"):
        (tmp_path / name).mkdir()
    (tmp_path / "data" / "pairs.jsonl").write_text("{}")
    (tmp_path / "data" / "mine.py").write_text("")
    (tmp_path / "uploads" / "theirs.py").write_text("")
    (tmp_path / "secret" / "key").write_text("")
    (tmp_path / "data" / "link").symlink_to(tmp_path / "secret" / "key")
    (tmp_path / "runs" / "away").symlink_to(tmp_path / "secret")
    return tmp_path


@pytest.fixture
def folders(place):
    return Folders((place / "runs", place / "data"), place / "uploads")


def test_a_path_below_a_folder_is_resolved_relative_or_whole(folders, place):
    whole = place / "data" / "pairs.jsonl"
    assert folders.resolve("pairs.jsonl") == folders.resolve(str(whole)) == whole


@pytest.mark.parametrize(
    "text", ["/etc/passwd", "../secret/key", "link", "away/key", "~/.ssh/id_rsa", "data/../../secret/key", "x\0y"]
)
def test_nothing_outside_is_read_however_it_is_named(folders, text):
    with pytest.raises(OptionError):
        folders.resolve(text)


def test_an_answer_does_not_tell_whether_a_file_outside_exists(folders, place):
    def said(text):
        with pytest.raises(OptionError) as error:
            folders.resolve(text)
        return str(error.value).replace(text, "")

    assert said(str(place / "secret" / "key")) == said(str(place / "secret" / "nothing"))


def test_names_of_the_hub_are_left_alone_and_files_of_that_name_are_files(folders, place):
    assert folders.checked_text("org/model", is_path=True) == "org/model"
    assert folders.checked_text("smollm2-135m", is_path=True) == "smollm2-135m"
    assert folders.checked_text("pairs.jsonl", is_path=True) == str(place / "data" / "pairs.jsonl")


def test_a_text_option_is_no_way_around(folders):
    for text in ("/etc/passwd", "away", "../secret", "away/key"):
        with pytest.raises(OptionError, match="folders of this server"):
            folders.checked_text(text, is_path=False)
    assert folders.checked_text("cosine", is_path=False) == "cosine"


def test_a_program_is_taken_where_it_may_be_and_never_from_an_upload(folders, place):
    mine = str(place / "data" / "mine.py")
    assert folders.checked_text("mine.py:reward", is_path=False, may_be_code=True) == f"{mine}:reward"
    with pytest.raises(OptionError, match="takes no Python file"):
        folders.checked_text("mine.py", is_path=True)
    with pytest.raises(OptionError, match="never run as a program"):
        folders.checked_text(str(place / "uploads" / "theirs.py"), is_path=False, may_be_code=True)
    with pytest.raises(OptionError, match="folders of this server"):
        folders.checked_text("/tmp/evil.py:f", is_path=False, may_be_code=True)


def test_control_characters_are_no_value(folders):
    with pytest.raises(OptionError, match="control characters"):
        folders.checked_text("a\x1b[31m", is_path=False)
