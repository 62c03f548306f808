"""Reading files: every type of file, every fault named by file, line and field."""

from __future__ import annotations

import gzip
import io
import json
import sys

import pytest

from paperworks.core.errors import DataError, OptionError
from paperworks.language.data import Demonstration, Feedback, Preference, PromptRow, parse_mapping, read

PAIR = {"prompt": "What is 2+2?", "chosen": "4", "rejected": "5"}
OTHER = {"prompt": "Capital of France?", "chosen": "Paris", "rejected": "Lyon"}


def jsonl(*rows: object) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@pytest.fixture
def write(tmp_path):
    """Writes bytes (or rows as JSON lines) to a file and gives its path."""

    def write_file(name: str, content: bytes | list) -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else jsonl(*content))
        return str(path)

    return write_file


def error_of(path: str, schema: str = "preference", **options: object) -> str:
    with pytest.raises(DataError) as caught:
        read(path, schema, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(path, "FILE")


def parquet(rows: list[dict]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), stream)
    return stream.getvalue()


FILES = {
    "a.jsonl": jsonl(PAIR, OTHER),
    "a.JSONL": jsonl(PAIR, OTHER),
    "bom.jsonl": b"\xef\xbb\xbf" + jsonl(PAIR, OTHER),
    "crlf.jsonl": jsonl(PAIR, OTHER).replace(b"\n", b"\r\n"),
    "blank.jsonl": b"\n" + jsonl(PAIR) + b"  \n" + jsonl(OTHER).strip(),
    "a.json": json.dumps([PAIR, OTHER], indent=1).encode(),
    "lines.json": jsonl(PAIR, OTHER),
    "a.csv": b"prompt,chosen,rejected\nWhat is 2+2?,4,5\nCapital of France?,Paris,Lyon\n",
    "bom.csv": b'\xef\xbb\xbfprompt,chosen,rejected\r\n"What is 2+2?",4,5\r\nCapital of France?,Paris,Lyon\r\n',
    "a.tsv": b"prompt\tchosen\trejected\nWhat is 2+2?\t4\t5\nCapital of France?\tParis\tLyon\n",
    "a.parquet": parquet([PAIR, OTHER]),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("packed", [False, True])
def test_every_file_type_gives_the_same_rows(write, name, packed):
    content = gzip.compress(FILES[name], mtime=0) if packed else FILES[name]
    dataset = read(write(name + ".gz" * packed, content), "preference")
    assert list(dataset) == [Preference(**PAIR), Preference(**OTHER)]
    assert dataset.report.format == "plain" and dataset.skipped == 0


def test_standard_input_is_json_lines(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(jsonl(PAIR))))
    assert list(read("-", Preference)) == [Preference(**PAIR)]


def test_text_file_is_one_prompt_a_line(write):
    dataset = read(write("p.txt", b"First prompt\r\n\nSecond\xe2\x80\xa8prompt\n"), "prompt")
    assert list(dataset) == [PromptRow("First prompt"), PromptRow("Second\u2028prompt")]
    assert [row.where.line for row in dataset] == [1, 3]


def test_rows_say_where_they_came_from(write):
    path = write("a.csv", b'prompt,chosen,rejected\n"two\nlines",a,b\nq,c,d\n')
    assert [row.where.line for row in read(path, "preference")] == [2, 4]
    path = write(
        "a.json", b'[\n{"prompt":"a","chosen":"b","rejected":"c"},\n\n {"prompt":"d",\n"chosen":"e","rejected":"f"}]'
    )
    assert [row.where.line for row in read(path, "preference")] == [2, 4]
    assert str(read(path, "preference")[1].where) == f"{path}:4"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "q", "chosen": "a"}, "FILE:2: field 'rejected': missing; the row has prompt, chosen (say which"),
        ({**PAIR, "chosen": ""}, "FILE:2: field 'chosen': expected text; found an empty string"),
        ({**PAIR, "chosen": " \n"}, "FILE:2: field 'chosen': expected text; found the string ' \\n'"),
        ({**PAIR, "chosen": None}, "FILE:2: field 'chosen': empty; expected a value"),
        ({**PAIR, "chosen": 4}, "FILE:2: field 'chosen': expected a string; found the number 4"),
        ({**PAIR, "chosen": {"a": 1}}, "FILE:2: field 'chosen': expected a string; found an object"),
        ({**PAIR, "chosen": "5"}, "FILE:2: chosen equals rejected"),
        ({**PAIR, "weight": -1}, "FILE:2: field 'weight': expected a finite number ≥ 0; found the number -1"),
        (
            {**PAIR, "weight": float("nan")},
            "FILE:2: field 'weight': expected a finite number ≥ 0; found the number na",
        ),
        ({**PAIR, "weight": 10**400}, "FILE:2: field 'weight': expected a finite number ≥ 0"),
        ({**PAIR, "weight": True}, "FILE:2: field 'weight': expected a finite number ≥ 0; found the boolean True"),
        ({**PAIR, "annotator_labels": [1, 2]}, "FILE:2: field 'annotator_labels': expected a list of 0 and 1"),
        ({**PAIR, "annotator_labels": [-1, 0]}, "found both 0 and -1"),
        ({**PAIR, "base": [1]}, "FILE:2: field 'base': expected a list of strings; one of them is the number 1"),
        ({**PAIR, "chosen": "\ud800"}, "FILE:2: field 'chosen': expected Unicode text; found half a surrogate pair"),
        ([1], "FILE:2: expected a JSON object; found a list"),
        ("x", "FILE:2: expected a JSON object; found the string 'x'"),
    ],
)
def test_bad_row_is_named_by_line_and_field(write, row, expected):
    assert expected in error_of(write("a.jsonl", [PAIR, row, OTHER]))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"prompt": "q", ', "FILE:2: not JSON (Expecting property name enclosed in double quotes at column"),
        (b'{"prompt": "\xff"}', "FILE:2: expected UTF-8; found the byte 0xff at byte 13 of the line"),
        (b"[" * 100_000, "FILE:2: not usable JSON"),
        (b'{"weight": ' + b"9" * 5000 + b"}", "FILE:2: not usable JSON"),
    ],
)
def test_bad_line_is_named(write, line, expected):
    assert expected in error_of(write("a.jsonl", jsonl(PAIR) + line + b"\n" + jsonl(OTHER)))


def test_error_counts_the_bad_rows_after_the_first(write):
    rows = [PAIR, {**PAIR, "chosen": "5"}, OTHER, {**PAIR, "chosen": 1}, {**PAIR, "chosen": "5"}]
    message = error_of(write("a.jsonl", rows))
    assert message.startswith("FILE:2: chosen equals rejected")
    assert "; 2 more bad rows (identical pair: 1, wrong type: 1); " in message
    assert "more bad" not in error_of(write("b.jsonl", rows[:3]))
    assert "; 1 more bad row like it; " in error_of(write("c.jsonl", rows[:3] + rows[4:]))


def test_skip_counts_by_kind(write):
    rows = [PAIR, {**PAIR, "chosen": "5"}, OTHER, {**PAIR, "chosen": 1}, {**PAIR, "chosen": "5"}]
    dataset = read(write("a.jsonl", rows), "preference", bad_rows="skip")
    assert list(dataset) == [Preference(**PAIR), Preference(**OTHER)]
    assert dataset.report.skipped == {"identical pair": 2, "wrong type": 1} and dataset.skipped == 3
    assert "skipped 3: identical pair: 2, wrong type: 1" in dataset.report.lines()


def test_no_rows_left_is_an_error(write):
    assert error_of(write("a.jsonl", b"\n\n")) == "FILE: 0 rows; expected at least one"
    message = error_of(write("b.jsonl", [{**PAIR, "chosen": "5"}]), bad_rows="skip")
    assert message.startswith("FILE: 0 rows left, all 1 skipped (identical pair: 1); the first, at line 1: ")
    assert error_of(write("c.json", b"[]")) == "FILE: 0 rows; expected at least one"


def test_limit_leaves_later_rows_unread(write):
    path = write("a.jsonl", [PAIR, OTHER, {"bad": 1}])
    assert list(read(path, "preference", limit=2)) == [Preference(**PAIR), Preference(**OTHER)]
    assert len(read(path, "feedback", limit=3)) == 3
    with pytest.raises(OptionError, match="at least 1"):
        read(path, "preference", limit=0)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.jsonl", gzip.compress(jsonl(PAIR), mtime=0), "FILE: the content is gzip; rename it to a.jsonl.gz"),
        ("a.jsonl.gz", jsonl(PAIR), "FILE: the name ends in .gz but the content is not gzip"),
        ("a.jsonl", parquet([PAIR]), "FILE: the content is Parquet; rename it to a.parquet"),
        ("a.csv", b"PK\x03\x04zip", "FILE: the content is a zip archive"),
        ("a.parquet", jsonl(PAIR), "FILE: not a Parquet file"),
        ("a.parquet", b"", "FILE: not a Parquet file"),
        ("a.parquet", parquet([PAIR])[:-20], "FILE: not a Parquet file"),
        (
            "a.jsonl",
            json.dumps([PAIR]).encode(),
            "FILE:1: a JSON list; expected one object a line (rename it to .js",
        ),
        ("a.json", json.dumps(PAIR, indent=1).encode(), "FILE:1: one JSON value over several lines"),
        ("a.json", b'[\n{"a": 1},\n{"a" 1}]', "FILE:3: not JSON (Expecting ':' delimiter at column 6)"),
        ("a.json", b'[{"a": 1}\n {"a": 1}]', "FILE:2: not JSON (expected ',' or ']' after an object)"),
        ("a.json", b'[{"a": 1}', "FILE:1: not JSON (expected ',' or ']' after an object)"),
        ("a.json", b'[\n"\xff"]', "FILE:2: expected UTF-8; found the byte 0xff"),
        ("a.jsonl", "x".encode("utf-16"), "FILE:1: the text is UTF-16; save it as UTF-8"),
        ("a.csv", "x,y".encode("utf-16"), "FILE:1: the text is UTF-16; save it as UTF-8"),
        ("a.jsonl.gz", gzip.compress(jsonl(*[PAIR] * 50), mtime=0)[:-9], "the gzip is damaged or cut short after line"),
        ("a.csv", b"", "FILE:1: expected a header line"),
        ("a.csv", b"prompt,chosen\nq,a\n", "FILE:1: field 'rejected': no such column; the columns are prompt, chosen"),
        ("a.csv", b"prompt,chosen,chosen\nq,a,b\n", "FILE:1: the header names the column 'chosen' twice"),
        ("a.csv", b"prompt,chosen,rejected\nq,a,b\nq,a\n", "FILE:3: expected 3 cells; found 2"),
        ("a.csv", b"prompt,chosen,rejected\nq,a,b\nq,,b\n", "FILE:3: field 'chosen': expected text; found an empty"),
        ("a.csv", b"prompt,chosen,rejected\nq,\xe9,b\n", "FILE:2: field 'chosen': expected UTF-8; found the byte 0xe9"),
        ("a.csv", b"prompt,chosen,\xe9\nq,c,b\n", "FILE:1: the header is not UTF-8"),
        ("a.csv", b'prompt,chosen,rejected\nq,"a,b\nq,c,d\n', "FILE:2: not a table (unexpected end of data)"),
        ("a.parquet", parquet([{"prompt": "q"}]), "FILE:1: field 'chosen': no such column; the columns are prompt"),
        ("a.doc", b"", "FILE: cannot tell what it holds from the ending '.doc'; expected .jsonl"),
    ],
)
def test_damaged_or_misnamed_file(write, name, content, expected):
    assert expected in error_of(write(name, content))


def test_missing_file_and_split_of_a_file(tmp_path, write):
    assert error_of(str(tmp_path / "none.jsonl")).startswith("FILE: no such file")
    with pytest.raises(OptionError, match="has no splits"):
        read(write("a.jsonl", [PAIR]), "preference", split="train")


def test_unknown_names_give_the_nearest(write):
    path = write("a.jsonl", [PAIR])
    with pytest.raises(OptionError, match="did you mean 'preference'"):
        read(path, "preferences")
    with pytest.raises(OptionError, match="did you mean 'plain'"):
        read(path, "preference", format="plane")
    with pytest.raises(OptionError, match="did you mean 'prompt'"):
        read(path, "preference", mapping=["promt=question"])
    with pytest.raises(OptionError, match="expected FIELD=COLUMN"):
        parse_mapping(["prompt"])
    with pytest.raises(OptionError, match="expected 'error' or 'skip'"):
        read(path, "preference", bad_rows="ignore")


def test_mapping_reads_other_columns_and_nested_values(write):
    row = {"q": {"text": "Q", "a.b": "dots"}, "choices": [{"t": "good"}, {"t": "bad"}], "w.x": 2}
    path = write("a.jsonl", [row])
    mapping = ["prompt=q.text", "chosen=choices.0.t", "rejected=choices.1.t", "weight=w.x"]
    assert list(read(path, "preference", mapping=mapping)) == [Preference("Q", "good", "bad", 2.0)]
    message = error_of(path, mapping={"prompt": "q.text", "chosen": "choices.9.t", "rejected": "choices.1.t"})
    assert "field 'chosen': missing: there is no value at 'choices.9.t', which --map gives for it" in message
    path = write("b.csv", b"question,a,b\nQ,good,bad\n")
    mapping = ["prompt=question", "chosen=a", "rejected=b"]
    assert list(read(path, "preference", mapping=mapping)) == [Preference("Q", "good", "bad")]
    assert "field 'chosen': no such column 'c'; the columns are question, a, b" in error_of(
        path, mapping=["prompt=question", "chosen=c", "rejected=b"]
    )


def test_optional_fields(write):
    row = {**PAIR, "weight": "0.5", "base": "one", "annotator_labels": [1, -1, 1]}
    assert list(read(write("a.jsonl", [row]), "preference")) == [
        Preference("What is 2+2?", "4", "5", 0.5, ("one",), (1, 0, 1))
    ]
    path = write("b.csv", b'prompt,chosen,rejected,weight,annotator_labels\nq,a,b,,"[1, 0]"\n')
    assert list(read(path, "preference")) == [Preference("q", "a", "b", 1.0, (), (1, 0))]


def test_native_feedback_and_demonstrations(write):
    rows = [
        {"prompt": "q", "completion": f"a{at}", "label": label}
        for at, label in enumerate([True, False, 1, 0, "true", "False", "1", 0.0])
    ]
    dataset = read(write("f.jsonl", rows), Feedback)
    assert [row.desirable for row in dataset] == [True, False, True, False, True, False, True, False]
    assert dataset.report.converted_from == ""
    assert "field 'desirable': expected true/false or 1/0; found the string 'yes'" in error_of(
        write("g.jsonl", [{**rows[0], "label": "yes"}]), "feedback"
    )
    dataset = read(write("d.jsonl", [{"prompt": "q", "response": "a"}]), Demonstration)
    assert list(dataset) == [Demonstration("q", "a")]


def test_preferences_become_feedback_and_demonstrations(write):
    path = write("a.jsonl", [{**PAIR, "weight": 2}])
    feedback = read(path, "feedback")
    assert list(feedback) == [Feedback("What is 2+2?", "4", True, 2.0), Feedback("What is 2+2?", "5", False, 2.0)]
    assert feedback.report.converted_from == "preference"
    assert "1 demonstration rows (format plain, converted from preference)" in " ".join(
        read(path, "demonstration").report.lines()
    )
    assert list(read(path, "demonstration")) == [Demonstration("What is 2+2?", "4", 2.0)]
    assert list(read(path, "prompt")) == [PromptRow("What is 2+2?")]
    assert "chosen equals rejected" in error_of(write("b.jsonl", [{**PAIR, "chosen": "5"}]), "feedback")


def test_saved_folder_of_the_datasets_library(tmp_path):
    import datasets

    whole = datasets.DatasetDict(
        train=datasets.Dataset.from_list([PAIR, OTHER]), test=datasets.Dataset.from_list([{**PAIR, "chosen": "5"}])
    )
    whole.save_to_disk(str(tmp_path / "saved"))
    assert list(read(tmp_path / "saved", "preference")) == [Preference(**PAIR), Preference(**OTHER)]
    with pytest.raises(DataError, match=r"saved:1: chosen equals rejected"):
        read(tmp_path / "saved", "preference", split="test")
    with pytest.raises(OptionError, match="did you mean 'test'"):
        read(tmp_path / "saved", "preference", split="tests")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="expected a folder written by save_to_disk"):
        read(tmp_path / "empty", "preference")


def test_unreachable_hub_names_both_ways(monkeypatch):
    import datasets

    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("no network\nat all")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    message = error_of("owner/name")
    assert "the hub did not give it (no network); " in message
    assert "save_to_disk" in message and "or give a file" in message


def test_hub_data_set_with_configuration_and_split(monkeypatch):
    import datasets

    asked = []

    def load(*arguments: object, **options: object) -> datasets.Dataset:
        asked.append((arguments, options))
        return datasets.Dataset.from_list([PAIR])

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert list(read("owner/name:main", "preference", split="test")) == [Preference(**PAIR)]
    assert asked == [(("owner/name", "main"), {"split": "test"})]
