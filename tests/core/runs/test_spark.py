"""The shape of a loss for a list, from a few reads."""

import json

import pytest

from llf_core.runs import RunWriter, create_run
from llf_core.runs.spark import POINTS, WHOLE, spark


@pytest.fixture
def folder():
    return create_run("stage: sft\n", "curve")


def test_a_short_run_is_read_whole_and_ends_with_its_last_loss(folder):
    assert spark(folder) == ()
    writer = RunWriter(folder)
    for step in range(1, 6):
        writer.metric(step, {"loss": 6.0 - step})
        writer.metric(step, {"eval_loss": 9.0})
    assert spark(folder) == (5.0, 4.0, 3.0, 2.0, 1.0)


def test_many_steps_are_thinned_out(folder):
    writer = RunWriter(folder)
    for step in range(1, 101):
        writer.metric(step, {"loss": float(step)})
    shape = spark(folder)
    assert len(shape) == POINTS
    assert shape[-1] == 100.0
    assert list(shape) == sorted(shape)


def test_a_long_file_is_read_at_a_few_places(folder):
    with folder.metrics.open("w") as file:
        for step in range(1, 20_001):
            values = {"loss": 100_000.0 - step, "grad_norm": 1.0}
            file.write(json.dumps({"step": step, "time": 0.0, "attempt": 1, "values": values}) + "\n")
    assert folder.metrics.stat().st_size > WHOLE
    shape = spark(folder)
    assert len(shape) == POINTS
    assert shape[-1] == 80_000.0
    assert list(shape) == sorted(shape, reverse=True)


def test_what_is_no_number_is_left_out(folder):
    folder.metrics.write_text(
        '{"step":1,"values":{"loss":"NaN"}}\n{"step":2,"values":{"loss":2.0}}\n{"step":3,"values":{"loss":"Infinity"}}\n'
        '[1]\n{"values":null,"loss":1}\n{"step":4,"values":{"loss":'
    )
    assert spark(folder) == (2.0,)
