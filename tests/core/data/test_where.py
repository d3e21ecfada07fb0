"""One numbering of records: what a view says of one is where an editor finds it."""

import gzip
import json

import pytest

from llf_core.data import prepare
from llf_core.data.file_readers import read_file, record_unit

GOOD = {"instruction": "Hi", "output": "Yo"}


@pytest.mark.parametrize(
    ("name", "text", "unit"),
    [
        ("a.jsonl", "{}\n", "line"),
        ("a.txt", "x\n", "line"),
        ("a.json", '\n{"a": 1}\n', "line"),
        ("a.json", "[{}]", "record"),
        ("a.csv", "a\n1\n", "row"),
        ("a.tsv", "a\n1\n", "row"),
    ],
)
def test_what_a_place_is_called(tmp_path, name, text, unit):
    path = tmp_path / name
    path.write_text(text)
    assert record_unit([path]) == unit
    assert record_unit([path, path]) == "record"
    list(read_file(path))


def test_a_file_that_cannot_be_unpacked_has_records(tmp_path):
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n')[:12])
    assert record_unit([path]) == "record"


def test_lines_are_counted_as_an_editor_does(make_config, write, tokenizer):
    """Eight lines, the third empty: the broken one is line 8 in the report, in Inspect and in its reason."""
    lines = [json.dumps(GOOD | {"instruction": f"Hi {number}"}) for number in range(1, 9)]
    lines[2], lines[4], lines[7] = "", json.dumps(GOOD | {"output": ""}), '{"instruction": "Hi"'
    write("\n".join(lines) + "\n")
    report = prepare(make_config(), tokenizer).report
    assert [report.where(one.index, one.dataset) for one in report.unusable()] == ["line 5", "line 8"]
    text = report.text()
    assert "data.jsonl line 5: a response is empty" in text
    assert "data.jsonl line 8: Expecting" in text


def test_rows_of_a_table_are_counted_without_its_head(make_config, write, tokenizer, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('instruction,output\n"two\nlines",Yo\nHi,\nHi,Yo\n')
    report = prepare(make_config(dataset=str(path)), tokenizer).report
    (dropped,) = report.unusable()
    assert report.where(dropped.index, dropped.dataset) == "row 2"


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz", "zst"])
def test_a_file_that_was_never_packed_has_records(tmp_path, suffix):
    path = tmp_path / f"a.json.{suffix}"
    path.write_text('{"a": 1}')
    assert record_unit([path]) == "record"
