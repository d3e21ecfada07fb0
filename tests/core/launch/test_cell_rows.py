"""Rows of a cell: every kind becomes the same table, and the same rows the same fingerprint."""

import re

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llf_core.launch.start import RowsError, to_table, write_rows

ROWS = [
    {"instruction": "Add 1 and 2.", "output": "3", "n": 1},
    {"instruction": "Greet.", "output": "Hello <b>you</b>", "n": 2},
]
CHAT = [
    {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
    {"conversations": [{"from": "human", "value": "Bye", "weight": 0}], "system": "Be short."},
]


def test_a_name_of_a_column_that_is_no_text_is_a_sentence():
    with pytest.raises(RowsError, match="lone surrogate"):
        to_table([{"a\ud800": 1}])


def test_a_full_disk_leaves_no_half_file(tmp_path, monkeypatch):
    def full(_, path, **__):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(OSError, match="No space"):
        write_rows(ROWS, tmp_path)
    assert list(tmp_path.iterdir()) == []


class Polars:
    """What polars' DataFrame has, as far as it matters here."""

    def to_arrow(self):
        return pa.Table.from_pylist(ROWS)


class PolarsColumn:
    """What a column of polars has."""

    def to_arrow(self):
        return pa.array([1, 2])


@pytest.mark.parametrize(
    "rows",
    [
        ROWS,
        tuple(ROWS),
        (row for row in ROWS),
        pd.DataFrame(ROWS),
        pd.DataFrame(ROWS, index=[7, 9]),
        datasets.Dataset.from_list(ROWS),
        datasets.Dataset.from_list([*ROWS, {"instruction": "x", "output": "y", "n": 3}]).select([0, 1]),
        pa.Table.from_pylist(ROWS),
        pa.concat_tables([pa.Table.from_pylist(ROWS[:1]), pa.Table.from_pylist(ROWS[1:])]),
    ],
    ids=["list", "tuple", "generator", "pandas", "indexed", "datasets", "selected", "arrow", "pieces"],
)
def test_every_kind_is_the_same_table(rows, tmp_path):
    path, mark = write_rows(rows, tmp_path)
    assert pq.read_table(path).to_pylist() == ROWS
    assert mark == write_rows(ROWS, tmp_path)[1]


def test_the_fingerprint_is_the_same_for_ever(tmp_path):
    """Made once and kept: prepared data sets and env.json are compared by it."""
    assert write_rows(ROWS, tmp_path)[1] == "d8b0bbf4c32c346d"


def test_a_column_of_nothing(tmp_path):
    assert pq.read_table(write_rows([{"a": "x", "b": None}], tmp_path)[0]).to_pylist() == [{"a": "x", "b": None}]


def test_a_stream_of_rows():
    stream = datasets.Dataset.from_list(ROWS).to_iterable_dataset()
    assert to_table(stream).to_pylist() == ROWS


def test_polars_by_its_method():
    assert to_table(Polars()).to_pylist() == ROWS


def test_conversations_with_missing_keys():
    assert to_table(CHAT).to_pylist() == [
        {"conversations": [{"from": "human", "value": "Hi", "weight": None},
                           {"from": "gpt", "value": "Hello", "weight": None}], "system": None},
        {"conversations": [{"from": "human", "value": "Bye", "weight": 0}], "system": "Be short."},
    ]  # fmt: skip


def test_the_fingerprint_tells_values_names_types_and_order_apart(tmp_path):
    marks = {
        write_rows(rows, tmp_path)[1]
        for rows in (
            ROWS, ROWS[::-1], ROWS[:1], [{**row, "n": str(row["n"])} for row in ROWS],
            [{"other": row["instruction"], **row} for row in ROWS],
        )
    }  # fmt: skip
    assert len(marks) == 5
    assert all(len(mark) == 16 for mark in marks)


TEXT = st.text(st.characters(codec="utf-8"))


@given(st.lists(st.fixed_dictionaries({"a": TEXT, "b": st.none() | st.integers(-9, 9)}), min_size=1, max_size=8))
def test_what_is_written_is_read_again(tmp_path_factory, rows):
    path, mark = write_rows(rows, tmp_path_factory.mktemp("rows") / "data")
    assert path.name == f"rows-{mark}.parquet"
    assert pq.read_table(path).to_pylist() == rows
    assert write_rows(rows, path.parent) == (path, mark)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "no rows"),
        (pd.DataFrame({"a": []}), "no rows"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "column"),
        (pa.table([[1], [2]], names=["a", "a"]), "has the columns a, a. Expected each name once"),
        (PolarsColumn(), "is a PolarsColumn"),
        ("a text", "is a str"),
        ({"a": [1]}, "is a dict"),
        (3, "is a int"),
        ([{"a": 1}, 3], "Row 2 of the data set is a int"),
        ([{1: "a"}], "key that is not a string"),
        ([{"a": 1}, {"a": "x"}], "Column 'a'"),
        ([{"a": object()}], "Column 'a'"),
        ([{"a": 2**80}], "Column 'a'"),
        ([{"a": "\ud800"}], "Column 'a'"),
    ],
)
def test_what_is_no_table_is_told(rows, words):
    with pytest.raises(RowsError, match=words):
        to_table(rows)


@pytest.mark.parametrize("value", [{}, [{}]])
def test_a_value_that_no_file_holds_is_told(tmp_path, value):
    with pytest.raises(RowsError, match=r"cannot be stored as Parquet: .* no child field"):
        write_rows([{"a": value}], tmp_path)
    assert list(tmp_path.iterdir()) == []


def containing_itself():
    row = {"text": "a"}
    row["row"] = row
    return row


def nested(levels):
    value = "a"
    for _ in range(levels - 1):
        value = [value]
    return {"text": value}


@pytest.mark.parametrize("row", [containing_itself(), nested(33)])
def test_a_row_that_contains_itself_is_refused_before_pyarrow_ends_the_process(row):
    said = "Row 2 of the data set contains itself, or is nested more than 32 levels deep. Expected plain data."
    with pytest.raises(RowsError, match=f"^{re.escape(said)}$"):
        to_table([{"text": "a"}, row])


def test_the_deepest_rows_are_read_back(tmp_path):
    path, _ = write_rows([nested(32)], tmp_path)
    assert pq.read_table(path).to_pylist() == [nested(32)]
