"""Appending and tailing: nothing that was written is lost, whatever stands around it."""

import json
import math
import threading
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llf_core.runs.files import json_bytes
from llf_core.runs.jsonl import Appender, Tail, append, as_number, encode, parse
from tests.processes import open_descriptors

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None))
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


def spelled(value):
    """What the contract says must stand in the file, by a second hand."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]
    if isinstance(value, dict):
        return {key: spelled(one) for key, one in value.items()}
    return [spelled(one) for one in value] if isinstance(value, list) else value


@given(st.dictionaries(st.text(st.characters(codec=None)), VALUES))
def test_every_record_is_one_line_of_strict_json(record):
    line = encode(record)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    line.decode("utf-8")
    read = json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert read == spelled(record)


def test_scalars_of_numpy_are_numbers():
    assert json.loads(encode({"a": np.float32(0.5), "b": np.int64(3), "c": [np.float64("nan")]})) == {
        "a": 0.5, "b": 3, "c": ["NaN"],
    }  # fmt: skip


def test_what_is_no_json_is_refused_by_name():
    with pytest.raises(TypeError, match="object"):
        encode({"a": object()})
    for write in (encode, json_bytes):
        with pytest.raises(TypeError, match="array"):
            write({"a": np.arange(3)})


@pytest.mark.parametrize(
    ("value", "number"),
    [(1, 1.0), (0.5, 0.5), ("Infinity", math.inf), ("-Infinity", -math.inf), ("nan", None), (True, None), (None, None)],
)
def test_as_number(value, number):
    assert as_number(value) == number


def test_as_number_of_nan():
    assert math.isnan(as_number("NaN"))


@pytest.mark.parametrize("line", [b"", b"{", b"[1]", b"3", b'"x"', b"\xff\xfe", b"{}x", b"[" * 100_000])
def test_what_is_no_object_is_none(line):
    assert parse(line) is None


def test_a_cut_last_line_is_ended_first(tmp_path):
    path = tmp_path / "f.jsonl"
    path.write_bytes(b'{"a": 1}\n{"b": ')
    append(path, {"c": 3})
    assert path.read_bytes() == b'{"a": 1}\n{"b": \n{"c":3}\n'


def test_a_line_that_another_process_cut_is_ended_too(tmp_path):
    appender = Appender(tmp_path / "f.jsonl")
    appender.append({"a": 1})
    with (tmp_path / "f.jsonl").open("ab") as other:
        other.write(b'{"half')
    appender.append({"b": 2})
    appender.close()
    assert (tmp_path / "f.jsonl").read_bytes() == b'{"a":1}\n{"half\n{"b":2}\n'


def test_threads_never_mix_their_lines(tmp_path):
    path = tmp_path / "f.jsonl"

    def write(who):
        appender = Appender(path)
        for number in range(300):
            appender.append({"who": who, "number": number, "pad": "x" * 500})
        appender.close()

    threads = [threading.Thread(target=write, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # A line that another thread was writing may have looked cut: then an empty line stands behind it.
    records = [json.loads(line) for line in path.read_text().splitlines() if line]
    assert len(records) == 4 * 300
    for who in range(4):
        assert [r["number"] for r in records if r["who"] == who] == list(range(300))


def test_tail_reads_each_line_once_and_leaves_a_cut_one(tmp_path):
    path = tmp_path / "f"
    tail = Tail(path)
    assert tail.read() == (b"", False)
    path.write_bytes(b"one\ntw")
    assert tail.read() == (b"one\n", False)
    assert tail.read() == (b"", False)
    with path.open("ab") as file:
        file.write(b"o\nthree\n")
    assert tail.read() == (b"two\nthree\n", False)


@pytest.mark.parametrize("change", ["cut", "rewritten", "replaced", "gone"])
def test_tail_tells_that_the_file_is_another(tmp_path, change):
    path = tmp_path / "f"
    path.write_bytes(b"one\ntwo\nthree\n")
    tail = Tail(path)
    tail.read()
    if change == "cut":
        path.write_bytes(b"one\n")
        assert tail.read() == (b"one\n", True)
    elif change == "rewritten":  # longer than before, in the same inode
        path.write_bytes(b"eins\nzwei\ndrei\nvier\n")
        assert tail.read() == (b"eins\nzwei\ndrei\nvier\n", True)
    elif change == "replaced":
        new = tmp_path / "new"
        new.write_bytes(b"one\ntwo\nthree\nfour\n")
        new.replace(path)
        assert tail.read() == (b"one\ntwo\nthree\nfour\n", True)
    else:
        path.unlink()
        assert tail.read() == (b"", True)
        assert tail.read() == (b"", False)


@given(
    st.lists(st.binary(max_size=30).map(lambda b: b.replace(b"\n", b"")), max_size=30), st.integers(1, 40), st.data()
)
def test_tail_in_pieces_equals_the_whole(tmp_path_factory, lines, most, data):
    path = tmp_path_factory.mktemp("tail") / "f"
    path.touch()
    whole = b"".join(line + b"\n" for line in lines)
    tail, got, written = Tail(path), b"", 0
    while written < len(whole):
        until = data.draw(st.integers(written + 1, len(whole)))
        with path.open("ab") as file:
            file.write(whole[written:until])
        written = until
        while (piece := tail.read(most))[0]:
            assert not piece[1]
            got += piece[0]
    assert got == whole


def test_no_file_stays_open(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"one\n")
    before = open_descriptors()
    tail = Tail(path)
    for _ in range(10):
        tail.read()
    assert open_descriptors() - before == set()


def test_any_mapping_is_a_record():
    record = MappingProxyType({"loss": math.inf, "token": "a"})
    assert parse(encode(record)) == {"loss": "Infinity", "token": "a"}
    assert json.loads(json_bytes(record)) == {"loss": "Infinity", "token": "a"}
