"""How long a step takes: by hand, and the same whether a whole run is read or its end."""

import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llf_core.runs import RunReader, RunWriter, Status, create_run
from llf_core.runs.jsonl import encode
from llf_core.runs.listing import read_row
from llf_core.runs.pace import CHUNK, latest_values, newest_step, read_backwards, read_pace, remaining, seconds_per_step


def test_speed_is_that_of_the_logged_steps():
    # steps 91 to 95 in 8 s: 2 s a step, whatever came before
    assert seconds_per_step([91, 93, 95], [100.0, 104.0, 108.0], 9.0) == 2.0


def test_one_or_no_logged_step_takes_the_trainers_own_word():
    assert seconds_per_step([91], [100.0], 4.1) == 4.1
    assert seconds_per_step([], [], None) is None


def test_old_speeds_are_forgotten():
    times = [*(step * 10.0 for step in range(150)), *(1500.0 + step for step in range(50))]
    assert seconds_per_step(list(range(1, 201)), times, None) == 1.0


def test_a_clock_that_was_set_back_counts_nothing():
    steps, times = list(range(1, 7)), [0, 2, 4, 4 - 3600, 6 - 3600, 8 - 3600.0]
    assert seconds_per_step(steps, times, 9.0) == 2.0
    assert seconds_per_step(steps[2:4], times[2:4], 9.0) == 9.0


def test_what_remains():
    assert remaining("running", 40, 100, 2.0) == 120.0
    assert remaining("running", 99, 100, 2.0) == 2.0
    assert remaining("running", 100, 100, 2.0) is None  # what follows the last step takes unknown time
    assert remaining("stopping", 101, 100, 2.0) is None
    assert remaining("finished", 1, 2, 1.0) is None
    assert remaining("running", 1, 0, 1.0) is None
    assert remaining("running", 1, 2, None) is None


def line(told):
    attempt, step, moment = told
    return encode({"step": step, "time": moment, "attempt": attempt, "values": {"loss": 1.0}})


def test_the_pace_is_read_from_the_last_steps_of_the_attempt():
    folder = create_run("stage: sft\n", "pace")
    going = Status(state="running", attempt=2, step_seconds=9.0)
    assert read_pace(folder, going).per_step == 9.0
    lines = [(1, step, 10.0 * step) for step in range(1, 400)]
    lines += [(2, step, 1e6 + 3.0 * step) for step in range(300, 340)]
    folder.metrics.write_bytes(b"".join(map(line, lines)))
    assert read_pace(folder, going).per_step == 3.0
    assert read_pace(folder, Status(state="finished", attempt=2, step_seconds=9.0)).per_step == 9.0
    lines = [(2, step, step if step > 950 else 100 * step) for step in range(1, 1001)]
    folder.metrics.write_bytes(b"".join(map(line, lines)))
    assert read_pace(folder, going).per_step == 1.0


def test_the_step_is_the_newest_that_the_status_or_the_metrics_know():
    folder = create_run("stage: sft\n", "step")
    writer = RunWriter(folder, 2)
    for step in (41, 42, 43):
        writer.metric(step, {"loss": 1.0})
    assert read_pace(folder, Status(state="running", attempt=2, step=41, total=60)).step == 43
    assert (
        read_pace(folder, Status(state="running", attempt=2, step=45, total=60)).step == 45
    )  # not every one is logged
    assert read_pace(folder, Status(state="running", attempt=3, step=30, total=60)).step == 30  # resumed before it
    assert read_pace(folder, Status(state="stopped", attempt=2, step=42, total=60)).step == 42
    assert newest_step(Status(state="running", step=4), ()) == 4


def test_a_row_has_the_step_of_its_loss():
    folder = create_run("stage: sft\n", "row")
    writer = RunWriter(folder)
    writer.status(state="running", step=42, total=60, attempt=1, heartbeat=time.time())
    writer.metric(43, {"loss": 0.5})
    row = read_row(folder)
    assert (row.state, row.step, row.loss) == ("running", 43, 0.5)


NAMES = ("loss", "eval_loss", "reward")
RECORDS = st.fixed_dictionaries(
    {
        "step": st.integers(0, 30),
        "attempt": st.integers(1, 3),
        "values": st.dictionaries(st.sampled_from(NAMES), st.floats(), max_size=3),
    }
)


@given(st.lists(RECORDS, max_size=30))
def test_the_last_values_are_those_of_the_whole_run(records):
    records.sort(key=lambda one: (one["attempt"], one["step"]))  # as attempts write them
    folder = create_run("stage: sft\n", "latest")
    folder.metrics.write_bytes(b"".join(encode(record | {"time": 1.0}) for record in records))
    columns = RunReader(folder).metrics()
    assert repr(read(folder)) == repr({name: columns.last(name) for name in sorted(columns)})


def read(folder, *names):
    descriptor = os.open(folder.metrics, os.O_RDONLY)
    try:
        return dict(sorted(latest_values(descriptor, names).items()))
    finally:
        os.close(descriptor)


def test_a_number_that_is_logged_now_and_then_is_found_far_from_the_end():
    folder = create_run("stage: sft\n", "far")
    writer = RunWriter(folder)
    writer.metric(1, {"loss": 5.0, "reward": 0.25})
    writer.metric(2, {"eval_loss": 1.5})
    writer.metric(2, {"eval_loss": 1.25})
    for step in range(3, 4000):
        writer.metric(step, {"loss": 1.0 / step, "grad_norm": 1.0})
    assert folder.metrics.stat().st_size > 3 * CHUNK
    assert read(folder, "reward") == {"eval_loss": 1.25, "grad_norm": 1.0, "loss": 1.0 / 3999, "reward": 0.25}
    before = time.thread_time()
    read(folder, "nowhere")
    assert time.thread_time() - before < 0.05


def test_what_a_later_attempt_makes_again_does_not_count():
    folder = create_run("stage: sft\n", "again")
    first, second = RunWriter(folder, 1), RunWriter(folder, 2)
    for step in range(1, 2001):
        first.metric(step, {"loss": 9.0, "grad_norm": 1.0} | ({"eval_loss": float(step)} if step % 100 == 0 else {}))
    for step in range(1501, 2000):
        second.metric(step, {"loss": 1.0, "grad_norm": 1.0})
    assert folder.metrics.stat().st_size > 3 * CHUNK
    assert read(folder, "loss") == {"eval_loss": 1500.0, "grad_norm": 1.0, "loss": 1.0}
    assert RunReader(folder).metrics().last("eval_loss") == 1500.0


@pytest.mark.parametrize("length", [10, CHUNK // 2, 3 * CHUNK])
def test_lines_longer_than_a_chunk_are_whole(length, tmp_path):
    path = tmp_path / "lines"
    path.write_bytes(b"".join(encode({"number": number, "text": "x" * length}) for number in range(5)) + b'{"cut": ')
    descriptor = os.open(path, os.O_RDONLY)
    assert [one["number"] for one in read_backwards(descriptor)] == [4, 3, 2, 1, 0]
    os.close(descriptor)


def test_numbers_that_are_no_steps_or_times_count_nothing():
    folder = create_run("stage: sft\n", "odd")
    odd = [(1, 10**400, 50.0), (1, 3, 10**400), (1, 4, float("inf"))]
    folder.metrics.write_bytes(b"".join(map(line, [(1, 1, 10.0), (1, 2, 12.0), *odd])))
    assert read_pace(folder, Status(state="running", attempt=1)).per_step == 2.0


def test_a_skipped_chunk_that_begins_with_an_invalid_line_yields_nothing(tmp_path):
    path = tmp_path / "lines"
    path.write_bytes(
        b"{half a line\n" + b"".join(encode({"number": number, "text": "x" * 100}) for number in range(2000))
    )
    descriptor = os.open(path, os.O_RDONLY)
    found = list(read_backwards(descriptor, lambda: [b"nowhere"]))
    os.close(descriptor)
    assert path.stat().st_size > 2 * CHUNK
    assert {} not in found
    assert found[0]["number"] == 1999
