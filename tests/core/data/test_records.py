"""Files of every kind give the same records; what is broken is named."""

import bz2
import csv
import gzip
import json
import lzma

import pyarrow as pa
import pytest
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from llf_core.data import file_readers
from llf_core.data.errors import DataError
from llf_core.data.file_readers import read_file, row_count
from llf_core.data.records import BrokenLine, Record

ROWS = [
    {"instruction": "Say ä", "output": "ä"},
    {"instruction": 'a "quoted", one', "output": "two\nlines"},
    {"instruction": "名", "output": "naïve"},
]


OPENERS = {
    "gz": gzip.open,
    "bz2": bz2.open,
    "xz": lzma.open,
    "zst": lambda path, _: pa.CompressedOutputStream(str(path), "zstd"),
}


def write_csv(path, delimiter=","):
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        table = csv.DictWriter(file, ["instruction", "output"], delimiter=delimiter)
        table.writeheader()
        table.writerows(ROWS)


WRITERS = {
    "json": lambda path: path.write_text(json.dumps(ROWS, indent=2), encoding="utf-8"),
    "jsonl": lambda path: path.write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8"),
    "csv": write_csv,
    "tsv": lambda path: write_csv(path, "\t"),
    "parquet": lambda path: parquet.write_table(pa.Table.from_pylist(ROWS), path),
    "arrow": lambda path: Dataset.from_list(ROWS).save_to_disk(path.with_suffix("")),
}


@pytest.mark.parametrize("kind", [*WRITERS, "arrow file"])
def test_every_kind_of_file_gives_the_same_records(tmp_path, kind):
    path = tmp_path / f"rows.{kind.split()[0]}"
    if kind == "arrow file":
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, pa.Table.from_pylist(ROWS).schema) as writer:
            writer.write_table(pa.Table.from_pylist(ROWS))
    else:
        WRITERS[kind](path)
    if kind == "arrow":
        (path,) = (tmp_path / "rows").glob("*.arrow")
    assert list(read_file(path)) == [Record(index, row) for index, row in enumerate(ROWS)]


def test_a_broken_line_is_named_and_the_rest_is_used(write):
    path = write(b'\xef\xbb\xbf{"a": 1}\n\n{"a": 2\n[3]\n{"a": "\xff"}\n  {"a": 5}  \n')
    assert list(read_file(path)) == [
        Record(0, {"a": 1}),
        BrokenLine(2, 3, "Expecting ',' delimiter at column 8"),
        BrokenLine(3, 4, "a list, expected an object"),
        BrokenLine(4, 5, "not UTF-8"),
        Record(5, {"a": 5}),
    ]


def test_a_text_that_does_not_end_is_told_without_a_word_twice(write):
    (broken,) = read_file(write('{"a": "b\n'))
    assert broken.reason == "Unterminated string starting at column 7"


def test_a_json_file_may_hold_lines(write):
    assert [one.row for one in read_file(write([{"a": 1}, {"a": 2}], "rows.json"))] == [{"a": 1}, {"a": 2}]


def test_a_broken_json_file_is_an_error_with_its_place(write):
    with pytest.raises(DataError, match=r"Expecting ',' delimiter at line 2, column 10"):
        list(read_file(write('[{"a": 1},\n {"a": 2 "b": 3}]', "rows.json")))


def test_an_entry_of_a_json_list_that_is_no_object_is_named(write):
    assert list(read_file(write('[{"a": 1}, "b"]', "r.json")))[1] == BrokenLine(1, 2, "a str, expected an object")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.xlsx", "PK", r"unknown type \(.xlsx\)"),
        ("rows", "x", "no suffix"),
        ("rows.json", '"text"', "holds a str. Expected a list"),
        ("rows.json", b"[\xff]", "not UTF-8"),
        ("rows.csv", b"a,b\n\xff,1\n", "not UTF-8"),
        ("rows.parquet", "no", "not a valid Parquet"),
        ("rows.arrow", "no", "not a valid Arrow"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_sentence(write, name, content, message):
    with pytest.raises(DataError, match=message):
        list(read_file(write(content, name)))


def test_a_row_with_too_many_cells_is_named(write):
    found = list(read_file(write("a,b\n1,2\n1,2,3\n4\n", "rows.csv")))
    assert found == [
        Record(0, {"a": "1", "b": "2"}),
        BrokenLine(1, 3, "more cells than the 2 columns"),
        Record(2, {"a": "4", "b": None}),
    ]


def test_arrow_adds_no_arguments_to_a_call(tmp_path):
    calls = [{"name": "a", "arguments": {"x": 1}}, {"name": "b", "arguments": {"y": "2"}}]
    path = tmp_path / "rows.parquet"
    parquet.write_table(pa.Table.from_pylist([{"messages": calls}]), path)
    assert next(read_file(path)).row == {"messages": calls}


json_text = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
lines = st.lists(
    st.one_of(
        st.dictionaries(st.text(max_size=4), json_text, max_size=3).map(json.dumps),
        st.text(alphabet=st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), max_size=12),
    ),
    max_size=12,
)


@given(lines=lines)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_lines_are_records_or_flaws_with_their_numbers(tmp_path, lines):
    path = tmp_path / "any.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8", newline="")
    expected = []
    for number, line in enumerate(lines, start=1):
        if not line.encode().strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        expected.append((number - 1, row if isinstance(row, dict) else number))
    found = [(one.index, one.row if isinstance(one, Record) else one.line) for one in read_file(path)]
    assert found == expected


@pytest.mark.parametrize("line", ['{"output": ' + "9" * 5000 + "}", "[" * 100_000], ids=["number", "brackets"])
def test_a_line_that_python_gives_up_on_is_one_broken_line(tmp_path, line):
    path = tmp_path / "odd.jsonl"
    path.write_text(f'{{"a": 1}}\n{line}\n{{"a": 3}}\n', encoding="utf-8")
    first, broken, last = read_file(path)
    assert (first.row, last.row) == ({"a": 1}, {"a": 3})
    assert (broken.index, broken.line) == (1, 2)
    assert broken.reason


@pytest.mark.parametrize("suffix", OPENERS)
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.txt"])
def test_a_compressed_text_reads_as_the_text(tmp_path, name, suffix):
    text = {
        "rows.jsonl": '{"a": "1"}\n{"a": "ä"}\n',
        "rows.json": '[{"a": "1"}, {"a": "ä"}]',
        "rows.csv": "a\n1\nä\n",
        "rows.txt": "1\n\nä\n",
    }[name]
    plain, packed = tmp_path / name, tmp_path / f"{name}.{suffix}"
    plain.write_text(text, encoding="utf-8")
    with OPENERS[suffix](packed, "wb") as file:
        file.write(text.encode())
    assert list(read_file(packed)) == list(read_file(plain))
    assert [next(iter(one.row.values())) for one in read_file(plain)] == ["1", "ä"]


@pytest.mark.parametrize("suffix", OPENERS)
def test_a_compressed_file_that_was_cut_is_one_sentence(tmp_path, suffix):
    path = tmp_path / f"rows.jsonl.{suffix}"
    with OPENERS[suffix](path, "wb") as file:
        file.write(b'{"a": 1}\n' * 5000)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"rows.jsonl.* cannot be unpacked"):
        list(read_file(path))
    path.write_bytes(b"no archive at all")
    with pytest.raises(DataError, match="cannot be unpacked"):
        list(read_file(path))


@pytest.mark.parametrize("suffix", ["arrow", "parquet"])
def test_a_time_zone_that_nobody_knows_costs_its_rows(tmp_path, suffix):
    table = pa.table({"a": ["one", "two"], "at": pa.array([0, None], pa.timestamp("us", tz="Mars/Phobos"))})
    path = tmp_path / f"rows.{suffix}"
    if suffix == "parquet":
        parquet.write_table(table, path)
    else:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    first, second = read_file(path)
    assert first == BrokenLine(0, 1, "a time in an unknown time zone: Mars/Phobos")
    assert second.row["a"] == "two"


@pytest.mark.parametrize("kind", ["bytes", "offsets", "timestamp", "date", "name"])
def test_an_arrow_file_of_a_stranger_loses_the_broken_rows_alone(tmp_path, kind):
    good = pa.array(["one", "two", "three"])
    ends = [0, 3, 900_000, 11] if kind == "offsets" else [0, 3, 6, 11]
    offsets = pa.array(ends, pa.int32()).buffers()[1]
    text = b"one\xff\xff\xffthree" if kind == "bytes" else b"onetwothree"
    columns = {
        "timestamp": pa.array([0, 2**62, 0], pa.timestamp("s")),
        "date": pa.array([0, 2**30, 0], pa.date32()),
    }
    odd = columns.get(kind, pa.Array.from_buffers(pa.string(), 3, [None, offsets, pa.py_buffer(text)]))
    path = tmp_path / "rows.arrow"
    batch = pa.RecordBatch.from_arrays([good, odd], names=["a", "odd"])
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)
    if kind == "name":
        path.write_bytes(path.read_bytes().replace(b"odd", b"\xff\xffd"))
        with pytest.raises(DataError, match="a column's name is not UTF-8"):
            list(read_file(path))
        return
    found = list(read_file(path))
    flaws = [one for one in found if isinstance(one, BrokenLine)]
    assert [one.reason for one in flaws] == ["a value that is broken, or outside the range of its type"] * len(flaws)
    assert 1 in [one.index for one in flaws]
    assert found[0].row["a"] == "one"


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_line_without_an_end_is_passed_over_in_pieces(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(file_readers, "MAX_LINE_BYTES", 50)
    monkeypatch.setattr(file_readers, "READ_BYTES", 7)
    lines = [
        '{"a": "one"}',
        '{"a": "' + "x" * 100 + '"}',
        '{"a": "two"}',
        '{"a": "' + "y" * 41 + '"}',
        '{"a": "three"}',
    ]
    assert len(lines[3]) == 50  # without its end; the end is a byte more than a line may have
    path = tmp_path / f"rows.jsonl{suffix}"
    with OPENERS.get(suffix.removeprefix("."), open)(path, "wb") as file:
        file.write("\n".join(lines).encode())
    read = list(read_file(path))
    assert [one.row["a"] for one in read if isinstance(one, Record)] == ["one", "two", "three"]
    assert [(one.index, one.reason) for one in read if isinstance(one, BrokenLine)] == [
        (1, "longer than 0 MB"), (3, "longer than 0 MB"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "mark"), [("a.csv", ";"), ("a.csv", "\t"), ("a.csv", ","), ("a.tsv", ";"), ("a.tsv", "\t")]
)
def test_a_table_is_read_by_the_delimiter_of_its_header(tmp_path, name, mark):
    (tmp_path / name).write_text(f'instruction{mark}output\n"1, 2; 3"{mark}Yes\n', encoding="utf-8-sig")
    assert [one.row for one in read_file(tmp_path / name)] == [{"instruction": "1, 2; 3", "output": "Yes"}]


def test_a_table_of_one_column_has_no_delimiter(tmp_path):
    (tmp_path / "a.csv").write_text("text\nred; green\n")
    assert [one.row for one in read_file(tmp_path / "a.csv")] == [{"text": "red; green"}]


def test_a_table_with_a_line_without_an_end_is_a_sentence(tmp_path, monkeypatch):
    before = csv.field_size_limit()
    monkeypatch.setattr(file_readers, "MAX_LINE_BYTES", 50)
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n1,2\n" + "x" * 100 + ",3\n")
    with pytest.raises(DataError, match=r"rows.csv has a line of more than 0 MB \(line 3\)"):
        list(read_file(path))
    assert csv.field_size_limit() >= before  # it is one for the whole process: other readers of tables keep theirs


def test_a_parquet_file_is_unpacked_by_bytes(tmp_path, monkeypatch):
    path = tmp_path / "rows.parquet"
    texts = [f"{number}" * 400 for number in range(1000, 1100)]
    parquet.write_table(pa.table({"a": texts}), path, row_group_size=60, use_dictionary=False)
    sizes = []
    original = file_readers.records_of_batch
    monkeypatch.setattr(file_readers, "MAX_SLICE_BYTES", 16_000)
    monkeypatch.setattr(
        file_readers, "records_of_batch", lambda batch, start: sizes.append(len(batch)) or original(batch, start)
    )
    assert [one.row["a"] for one in read_file(path)] == texts
    assert [one.index for one in read_file(path)] == list(range(100))
    assert max(sizes) <= 10  # of about 1,600 bytes


def test_the_count_of_a_file_that_was_cut_is_refused_in_a_sentence(tmp_path):
    table = pa.table({"text": ["x" * 50] * 1000})
    path = tmp_path / "rows.arrow"
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write(table)
    assert row_count(path) == 1000
    path.write_bytes(path.read_bytes()[:-30000])
    with pytest.raises(DataError, match=r"rows.arrow cannot be unpacked: .* Copy or create it again"):
        row_count(path)


def test_two_columns_without_a_name_are_told_as_such(write):
    with pytest.raises(DataError, match="has the column without a name twice"):
        list(read_file(write("a,,\n1,2,3\n", "rows.csv")))


@pytest.mark.timeout(60)
def test_the_key_that_one_of_many_has_twice_is_found_at_once(write):
    """Comparing each of these keys with each would take an hour."""
    keys = [str(number) for number in range(500_000)]
    row = "{" + ", ".join(f'"{key}": 0' for key in [*keys, keys[-1]]) + "}"
    (broken,) = read_file(write(row + "\n"))
    assert broken.reason == "the key '499999' twice"
    with pytest.raises(DataError, match="has the column 499999 twice"):
        list(read_file(write(",".join([*keys, keys[-1]]) + "\n1\n", "rows.csv")))
