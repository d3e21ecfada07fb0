"""The table of past runs: what it keeps, what it ignores, and how it corrects forecasts."""

import json
import math
import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest

from llf_core.config import RunConfig
from llf_core.estimate.past_runs import (
    FIRST_SPREAD,
    FORMAT,
    LEAST_SPREAD,
    MOST_RUNS,
    PastRun,
    add_past_run,
    correct_memory,
    correct_seconds,
    data_key,
    past_runs,
    table_file,
)

RUN = PastRun(
    time=1000.0, device="a CPU", method="lora adamw_torch_fused", stage="sft", parameters=10**9, tokens=1000.0,
    checkpointing=False, uncorrected_seconds=2.0, seconds=3.0, uncorrected_memory=100, memory=110, data="d",
    examples=5, quantiles=(1, 2, 3),
)  # fmt: skip


@pytest.fixture(autouse=True)
def folder(llf_home: Path) -> None:
    llf_home.mkdir()


def add_some(first: int) -> None:
    for number in range(first, first + 10):
        add_past_run(replace(RUN, time=float(number)))


def test_what_is_added_is_read_back() -> None:
    assert past_runs() == ()
    add_past_run(RUN)
    add_past_run(replace(RUN, seconds=4.0))
    assert past_runs() == (RUN, replace(RUN, seconds=4.0))


def test_processes_that_add_at_once_lose_nothing() -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=add_some, args=(start,)) for start in (0, 100)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(250)
    assert sorted(one.time for one in past_runs()) == [*range(10), *range(100, 110)]


def test_the_table_keeps_the_newest_runs() -> None:
    runs = [{**vars(replace(RUN, time=float(number))), "quantiles": [1]} for number in range(MOST_RUNS)]
    table_file().write_text(json.dumps({"format": FORMAT, "runs": runs}))
    add_past_run(replace(RUN, time=9999.0))
    assert len(past_runs()) == MOST_RUNS
    assert (past_runs()[0].time, past_runs()[-1].time) == (1.0, 9999.0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"format": 2, "runs": []}',
        '{"format": 2, "runs": 3}',
        '{"format": 2, "runs": [3, {}]}',
        "\0" * 9,
    ],
)
def test_a_broken_table_is_ignored_and_replaced(text: str) -> None:
    table_file().write_text(text)
    assert past_runs() == ()
    add_past_run(RUN)
    assert past_runs() == (RUN,)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seconds", 0), ("seconds", -1.0), ("seconds", "3"), ("parameters", 0), ("tokens", "NaN"),
        ("quantiles", ["1"]), ("quantiles", [-1]), ("device", None), ("examples", -1), ("checkpointing", 1),
        ("parameters", 10**400), ("memory", 10**400), ("time", 1e300), ("examples", 10**400),
    ],
)  # fmt: skip
def test_a_run_that_makes_no_sense_is_left_out(name: str, value: object) -> None:
    add_past_run(RUN)
    told = json.loads(table_file().read_text())
    told["runs"].append({**told["runs"][0], name: value})
    table_file().write_text(json.dumps(told))
    assert past_runs() == (RUN,)


def test_the_same_run_corrects_by_its_ratio_and_narrows_the_range() -> None:
    assert (correct_seconds(RUN, ()).factor, correct_seconds(RUN, ()).spread) == (1.0, FIRST_SPREAD)
    found = correct_seconds(RUN, (RUN,))
    assert found.factor == pytest.approx(1.5)
    assert (found.spread, found.runs) == (LEAST_SPREAD, 1)


def test_a_newer_run_counts_twice_an_older_one() -> None:
    found = correct_seconds(RUN, (replace(RUN, seconds=2.0), replace(RUN, seconds=8.0)))
    assert found.factor == pytest.approx(math.exp((2 * math.log(4) + math.log(1)) / 3))


def test_after_a_measurement_earlier_runs_do_not_count() -> None:
    fast, slow = replace(RUN, seconds=1.0), replace(RUN, seconds=8.0, measured=True)
    assert correct_seconds(RUN, (fast, slow)).factor == pytest.approx(4)
    assert correct_seconds(RUN, (replace(fast, measured=True), replace(slow, measured=False))).factor == pytest.approx(
        math.exp((math.log(4) + math.log(0.5) / 2) / 1.5)
    )


def test_the_more_similar_run_counts_more_and_another_device_nothing() -> None:
    other = replace(RUN, method="full adamw_torch_fused", parameters=4 * 10**9, seconds=20.0)
    factor = correct_seconds(RUN, (other, RUN)).factor
    assert 1.5 < factor < 1.7
    assert correct_seconds(RUN, (other,)).factor == pytest.approx(10)
    assert LEAST_SPREAD < correct_seconds(RUN, (other,)).spread < FIRST_SPREAD
    assert correct_seconds(RUN, (replace(RUN, device="another"),)).runs == 0


def test_a_run_that_is_a_hundred_times_off_does_not_correct() -> None:
    assert correct_seconds(RUN, (replace(RUN, seconds=1e9),)).runs == 0
    assert correct_seconds(RUN, (replace(RUN, seconds=1e-9), RUN)).factor == pytest.approx(1.5)


def test_memory_is_corrected_by_the_newest_equal_run_alone() -> None:
    assert correct_memory(RUN, (RUN, replace(RUN, memory=120))).factor == pytest.approx(1.2)
    assert correct_memory(RUN, (replace(RUN, parameters=4 * 10**9),)).factor == 1
    assert correct_memory(RUN, (replace(RUN, memory=0),)).factor == 1


def test_three_measured_steps_raise_a_forecast_of_memory_and_never_lower_it() -> None:
    assert correct_memory(RUN, (replace(RUN, memory=90),)).factor == pytest.approx(0.9)
    assert correct_memory(RUN, (replace(RUN, memory=90, measured=True),)).factor == 1
    assert correct_memory(RUN, (replace(RUN, memory=120, measured=True),)).factor == pytest.approx(1.2)


def test_a_damaged_peak_corrects_nothing() -> None:
    for memory in (1, 10**6):
        assert correct_memory(RUN, (replace(RUN, uncorrected_memory=1000, memory=memory),)).runs == 0
    assert correct_memory(RUN, (replace(RUN, uncorrected_memory=1000, memory=900),)).factor == 0.9


def test_data_has_another_key_where_a_file_of_it_has_changed(tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text(json.dumps({"mine": {"file_name": "rows.json"}}))
    (tmp_path / "folder").mkdir()
    for name, file in (("mine", "rows.json"), ("folder", "folder/a.json"), ("alone.json", "alone.json")):
        config = RunConfig.load({"dataset": name, "dataset_dir": str(tmp_path)}, base=tmp_path)
        missing = data_key(config)
        (tmp_path / file).write_text("[1]")
        first = data_key(config)
        assert len({missing, first}) == 2, name
        assert data_key(config.replace(cutoff_len=64)) == first
        (tmp_path / file).write_text("[1, 2]")
        assert data_key(config) not in {missing, first}, name
