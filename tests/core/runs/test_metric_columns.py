"""Metrics as columns, against a dictionary that follows the rule word by word."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llf_core.runs import Columns, RunReader, metric_columns, reader
from llf_core.runs.jsonl import encode
from llf_core.runs.metric_columns import parse_lines

NAMES = ("loss", "eval_loss", "tokens")
NUMBERS = st.floats() | st.integers(-(2**53), 2**53)
RECORDS = st.fixed_dictionaries(
    {
        "step": st.integers(0, 12),
        "time": st.floats(1e9, 2e9),
        "attempt": st.integers(1, 3),
        "values": st.dictionaries(st.sampled_from(NAMES), NUMBERS, max_size=3),
    }
)
ODD = st.sampled_from([
    b"", b"garbage", b"{", b"null", b"[]", b"{}", b"{} null",
    b'{"step": -1, "values": {"loss": 1}}', b'{"step": "3", "values": {"loss": 1}}',
    b'{"step": 1.5, "values": {"loss": 1}}', b'{"step": true, "values": {"loss": 1}}', b'{"values": {"loss": 1}}',
    b'{"step": 4, "values": [1]}', b'{"step": 4}', b'{"step": 99999999999999999999, "values": {"loss": 1}}',
])  # fmt: skip


def by_the_rule(records):
    """Name -> step -> value: for one step and name the highest attempt wins, then the later line.

    A record counts unless a later attempt has logged a step before its own: that one makes the steps again.
    """
    best = {}
    for record in records:
        step, attempt = record["step"], record["attempt"]
        if any(other["attempt"] > attempt and other["step"] < step for other in records):
            continue
        for name, value in record["values"].items():
            old = best.setdefault(name, {}).get(step)
            if old is None or attempt >= old[0]:
                best[name][step] = (attempt, float(value))
    return {name: {step: one[1] for step, one in sorted(steps.items())} for name, steps in best.items()}


def as_dict(columns):
    return {
        name: dict(zip(columns.steps(name).tolist(), columns.values(name).tolist(), strict=True)) for name in columns
    }


def same(first, second):
    assert first.keys() == second.keys()
    for name, steps in first.items():
        assert list(steps) == list(second[name])
        assert np.array_equal(list(steps.values()), list(second[name].values()), equal_nan=True)


@given(st.lists(RECORDS, max_size=40), st.data())
def test_columns_follow_the_rule_in_whatever_pieces_the_lines_come(records, data):
    lines = [encode(record) for record in records]
    columns, at = Columns(), 0
    while at < len(lines):
        until = data.draw(st.integers(at + 1, len(lines)))
        columns.add(b"".join(lines[at:until]))
        at = until
    same(as_dict(columns), by_the_rule(records))


@given(st.lists(RECORDS.map(encode) | ODD.map(lambda line: line + b"\n"), max_size=40))
def test_pyarrow_and_the_plain_reader_agree(lines):
    data = b"".join(lines)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metric_columns, "MIN_ARROW_BYTES", len(data) + 1)
        plain = as_dict_of(parse_lines(data))
        patch.setattr(metric_columns, "MIN_ARROW_BYTES", 0)
        fast = as_dict_of(parse_lines(data))
    same(fast, plain)


def as_dict_of(blocks):
    columns = Columns()
    for block in blocks:
        columns._add(block)
    return as_dict(columns)


def test_many_lines_go_through_pyarrow_and_keep_every_digit(monkeypatch):
    rng = np.random.default_rng(0)
    values = rng.standard_normal(5000)
    values[[7, 4000]] = np.nan
    values[11] = math.inf
    values[12] = -math.inf
    data = b"".join(encode({"step": i, "time": 1.5 + i, "attempt": 1, "values": {"loss": v, "tokens": 3 * i}})
                    for i, v in enumerate(values.tolist()))  # fmt: skip
    monkeypatch.setattr(metric_columns, "_parse_line_by_line", lambda _: pytest.fail("the slow way was taken"))
    (block,) = parse_lines(data)
    rows, loss = block.values["loss"]
    assert rows == slice(None)
    assert np.array_equal(loss.view(np.int64)[np.isfinite(loss)], values.view(np.int64)[np.isfinite(values)])
    assert np.array_equal(loss, values, equal_nan=True)
    assert block.values["tokens"][1][-1] == 3 * 4999
    assert block.times[-1] == 5000.5


@pytest.mark.parametrize("every", [1, 3, 900])
def test_many_and_few_words_become_numbers_again(every):
    words = [math.nan, math.inf, -math.inf]
    values = [words[i % 3] if i % every == 0 else i / 7 for i in range(6000)]
    data = b"".join(encode({"step": i, "values": {"loss": v}}) for i, v in enumerate(values))
    columns = Columns()
    columns.add(data)
    assert np.array_equal(columns.values("loss"), values, equal_nan=True)


def test_one_bad_line_among_many_costs_only_itself():
    lines = [encode({"step": i, "time": 1.0, "attempt": 1, "values": {"loss": float(i)}}) for i in range(20_000)]
    lines[9000] = b'{"step": 9000, "values": {"lo\n'
    columns = Columns()
    columns.add(b"".join(lines))
    assert columns.steps("loss").tolist() == [i for i in range(20_000) if i != 9000]


def test_a_value_that_is_no_number_is_passed_over_and_its_neighbours_stay():
    columns = Columns()
    columns.add(
        encode({"step": 1, "values": {"loss": 1.0, "note": "hello", "flag": True, "nothing": None, "more": [1]}})
    )
    assert as_dict(columns) == {"loss": {1: 1.0}}


def test_a_record_without_attempt_is_of_the_first():
    columns = Columns()
    columns.add(
        encode({"step": 1, "attempt": 2, "values": {"loss": 2.0}}) + encode({"step": 1, "values": {"loss": 1.0}})
    )
    assert as_dict(columns) == {"loss": {1: 2.0}}


def test_arrays_handed_out_stay_and_can_not_be_written():
    columns = Columns()
    columns.add(encode({"step": 1, "values": {"loss": 1.0}}))
    old = columns.values("loss")
    columns.add(
        encode({"step": 2, "attempt": 2, "values": {"loss": 2.0}})
        + encode({"step": 1, "attempt": 2, "values": {"loss": 9.0}})
    )
    assert old.tolist() == [1.0]
    assert columns.values("loss").tolist() == [9.0, 2.0]
    with pytest.raises(ValueError, match="read-only"):
        columns.values("loss")[0] = 3


def test_add_tells_whether_there_was_a_record():
    columns = Columns()
    assert columns.add(encode({"step": 1, "values": {"loss": 1.0}}))
    assert not columns.add(b"garbage\n")
    assert not columns.add(b"")


def test_a_reader_starts_again_where_the_file_was_replaced(folder):
    folder.metrics.write_bytes(
        encode({"step": 1, "values": {"loss": 1.0}}) + encode({"step": 2, "values": {"loss": 1.0}})
    )
    reader = RunReader(folder)
    assert len(reader.metrics()) == 2
    folder.metrics.write_bytes(encode({"step": 9, "values": {"loss": 5.0}}))
    assert as_dict(reader.metrics()) == {"loss": {9: 5.0}}


@pytest.mark.parametrize("deep", [b"[" * 50_000 + b"]" * 50_000, b'{"a":' * 50_000 + b"1" + b"}" * 50_000])
@pytest.mark.parametrize("line", [b'{"step":1,"x":%s,"values":{"loss":1}}', b'{"step":1,"values":{"loss":1,"x":%s}}'])
def test_a_line_that_is_nested_without_end_does_not_end_the_process(line, deep):
    whole = encode({"step": 2, "values": {"loss": 2.0}})
    lines = line % deep + b"\n" + whole
    code = (
        "import sys; from llf_core.runs import Columns; c = Columns(); c.add(sys.stdin.buffer.read()); print(c.names)"
    )
    done = subprocess.run([sys.executable, "-c", code], input=lines, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"['loss']\n")


def test_a_reader_hands_out_the_last_of_very_many_events(folder, monkeypatch):
    monkeypatch.setattr(reader, "MAX_RECORDS", 10)
    events = [encode({"type": "state", "step": step}) for step in range(100)]
    folder.events.write_bytes(b"".join(events))
    looking = RunReader(folder)
    assert [event["step"] for event in looking.events()] == list(range(90, 100))
    with folder.events.open("ab") as file:
        file.write(encode({"type": "state", "step": 100}))
    assert [event["step"] for event in looking.events()] == [100]
    copy = folder.events.with_name("copy")
    copy.write_bytes(
        b"".join([*events, encode({"type": "state", "step": 100}), encode({"type": "state", "step": 101})])
    )
    copy.replace(folder.events)
    assert [event["step"] for event in looking.events()] == [101]


def test_a_reader_takes_in_only_what_is_new(folder, monkeypatch):
    reader = RunReader(folder)
    folder.metrics.write_bytes(encode({"step": 1, "values": {"loss": 1.0}}))
    reader.metrics()
    seen = []
    monkeypatch.setattr(Columns, "add", lambda self, data: seen.append(data))
    reader.metrics()
    with folder.metrics.open("ab") as file:
        file.write(b'{"step": 2, "values": {"loss": 2.0}}\n{"step"')
    reader.metrics()
    assert [json.loads(data)["step"] for data in seen] == [2]


@pytest.mark.parametrize("spelling", [b'"n%d":1', b'"n%d" : 1', b'"n%d\\"":1'], ids=["plain", "spaced", "escaped"])
def test_a_name_for_every_line_takes_neither_memory_nor_time(spelling):
    lines = b"".join(b'{"step":%d,"values":{"loss":1,%s}}\n' % (step, spelling % step) for step in range(3000))
    assert len(lines) > metric_columns.MIN_ARROW_BYTES
    assert max(len(block.values) for block in parse_lines(lines)) <= metric_columns.MAX_NAMES
    columns = Columns()
    columns.add(lines)
    assert len(columns.names) == metric_columns.MAX_NAMES
    assert len(columns.steps("loss")) == 3000


def test_a_metric_that_is_called_time_takes_the_place_of_no_time():
    columns = Columns()
    columns.add(b"".join(encode({"step": step, "time": 10.0 + step, "values": {"time": 99.0}}) for step in (1, 2)))
    steps, times = columns.times()
    assert (steps.tolist(), times.tolist()) == ([1, 2], [11.0, 12.0])
