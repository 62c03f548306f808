"""Whatever a file holds, it reads or gives one line that a user can act on; never a traceback."""

from __future__ import annotations

import gzip
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from paperworks.core.errors import DataError
from paperworks.language.data import SCHEMAS, Dataset, read, read_labelled_sentences

ENDINGS = (".jsonl", ".json", ".csv", ".tsv", ".txt", ".parquet")
FORMATS = ("auto", "plain", "chat", "hh")
few = settings(max_examples=150, deadline=None)


def reads_or_complains(name: str, content: bytes, schema: str, format: str, bad_rows: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        try:
            dataset = read(path, schema, format=format, bad_rows=bad_rows)  # type: ignore[arg-type]
        except DataError as error:
            assert str(path) in str(error) and len(str(error).splitlines()) == 1
        else:
            assert isinstance(dataset, Dataset) and len(dataset) > 0
            assert all(isinstance(row, SCHEMAS[schema]) for row in dataset)
            assert len(dataset.fingerprint) == 64
            assert all("\n" not in line for line in dataset.report.lines())


@given(
    st.binary(max_size=400),
    st.sampled_from(ENDINGS),
    st.booleans(),
    st.sampled_from(sorted(SCHEMAS)),
    st.sampled_from(FORMATS),
    st.sampled_from(["error", "skip"]),
)
@example(b"\xff\xfe", ".csv", False, "prompt", "auto", "error")
@example(b'["\\ud800"]', ".json", False, "prompt", "auto", "skip")
@example(b"prompt\n\xff\n", ".csv", True, "prompt", "plain", "error")
@example(b"[" * 50_000, ".json", False, "prompt", "auto", "error")
@few
def test_any_bytes(content, ending, packed, schema, format, bad_rows):
    content = gzip.compress(content) if packed else content
    reads_or_complains("f" + ending + ".gz" * packed, content, schema, format, bad_rows)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "", 3]), "content": st.text(max_size=4) | json_values}
    ),
    max_size=3,
)
dialogues = st.lists(st.sampled_from(["\n\nHuman:", "\n\nAssistant:", " a", " b", "\n", ""]), max_size=6).map("".join)
fields = ("prompt", "chosen", "rejected", "response", "messages", "label", "weight", "base", "annotator_labels")
rows = st.dictionaries(st.sampled_from(fields), messages | dialogues | json_values, max_size=9)


@given(
    st.lists(rows, max_size=3),
    st.sampled_from([".jsonl", ".json"]),
    st.sampled_from(sorted(SCHEMAS)),
    st.sampled_from(FORMATS),
    st.sampled_from(["error", "skip"]),
)
@few
def test_any_json_under_the_schemas_own_names(items, ending, schema, format, bad_rows):
    text = json.dumps(items) if ending == ".json" else "\n".join(map(json.dumps, items))
    reads_or_complains("f" + ending, text.encode(), schema, format, bad_rows)


@given(st.data(), st.sampled_from(["f.jsonl.gz", "f.parquet"]))
@settings(max_examples=60, deadline=None)
def test_damage_anywhere_in_a_packed_file(data, name):
    row = {"prompt": "q" * 50, "chosen": "a", "rejected": "b"}
    if name.endswith(".gz"):
        content = bytearray(gzip.compress((json.dumps(row) + "\n").encode() * 30))
    else:
        content = bytearray(_parquet(row))
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content = content[:at]
    else:
        content[at] ^= data.draw(st.integers(1, 255))
    reads_or_complains(name, bytes(content), "preference", "auto", "error")


def _parquet(row: dict[str, str]) -> bytes:
    import io

    import pyarrow
    import pyarrow.parquet

    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row] * 3), stream)
    return stream.getvalue()


@given(st.binary(max_size=200))
@few
def test_any_bytes_as_labelled_sentences(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.tsv"
        path.write_bytes(content)
        try:
            sentences = read_labelled_sentences(path)
        except DataError as error:
            assert len(str(error).splitlines()) == 1
        else:
            assert sentences and all(label in (0, 1) for _, label in sentences)


def test_labelled_sentences(tmp_path):
    path = tmp_path / "s.tsv"
    path.write_bytes(b'sentence\tlabel\r\na fine film\t1\r\n\r\na "dull" one\t0\r\n')
    assert read_labelled_sentences(path) == [("a fine film", 1), ('a "dull" one', 0)]
    path.write_bytes(b"a fine film\t1\nno label\nbad\t2\n")
    with pytest.raises(DataError, match=r"s.tsv:2: field 'sentence'.*1 more bad row"):
        read_labelled_sentences(path)
    with pytest.raises(DataError, match="no such file"):
        read_labelled_sentences(tmp_path / "none.tsv")
