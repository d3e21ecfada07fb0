"""The shape of a loss for a list, from a few reads."""

import json

import pytest

from llf_core.runs import RunWriter, create_run
from llf_core.runs.charts import key_values
from llf_core.runs.pace import POINTS, WHOLE, CurveSummary, curve_summary


@pytest.fixture
def folder():
    return create_run("stage: sft\n", "curve")


def test_a_short_run_is_read_whole_and_ends_with_its_last_loss(folder):
    assert curve_summary(folder) == CurveSummary()
    writer = RunWriter(folder)
    for step in range(1, 6):
        writer.metric(step, {"loss": 6.0 - step})
        writer.metric(step, {"eval_loss": 9.0})
    assert curve_summary(folder) == CurveSummary((5.0, 4.0, 3.0, 2.0, 1.0), {"loss": 1.0, "eval_loss": 9.0})


def test_many_steps_are_thinned_out(folder):
    writer = RunWriter(folder)
    for step in range(1, 101):
        writer.metric(step, {"loss": float(step)})
    points = curve_summary(folder).points
    assert len(points) == POINTS
    assert points[-1] == 100.0
    assert list(points) == sorted(points)


def test_a_long_file_is_read_at_a_few_places(folder):
    with folder.metrics.open("w") as file:
        for step in range(1, 20_001):
            values = {"loss": 100_000.0 - step, "grad_norm": 1.0}
            file.write(json.dumps({"step": step, "time": 0.0, "attempt": 1, "values": values}) + "\n")
    assert folder.metrics.stat().st_size > WHOLE
    points = curve_summary(folder).points
    assert len(points) == POINTS
    assert points[-1] == 80_000.0
    assert list(points) == sorted(points, reverse=True)


def test_what_is_no_number_is_left_out(folder):
    folder.metrics.write_text(
        '{"step":1,"values":{"loss":"NaN"}}\n{"step":2,"values":{"loss":2.0}}\n{"step":3,"values":{"loss":"Infinity"}}\n'
        '[1]\n{"values":null,"loss":1}\n{"step":4,"values":{"loss":'
    )
    assert curve_summary(folder).points == (2.0,)
    assert curve_summary(folder).last == {"loss": float("inf")}


def test_what_counts_beside_the_loss_is_told(folder):
    writer = RunWriter(folder)
    for step in range(1, 4):
        values = {"loss": 0.7 - step / 10, "rewards/margins": step / 2, "rewards/accuracies": 0.5 + step / 8}
        writer.metric(step, values | {"rewards/chosen": float("nan")})
    found = curve_summary(folder)
    assert found.points == pytest.approx((0.6, 0.5, 0.4))
    assert [(one["label"], one["form"], one["value"]) for one in key_values(found.last)] == [
        ("Training accuracy", "share", 0.875),
        ("Training margin", "number", 1.5),
    ]


def test_where_there_is_a_reward_its_shape_is_drawn(folder):
    with folder.metrics.open("w") as file:
        for step in range(1, 2001):
            values = {"loss": 0.0, "kl": 0.5, "reward": float(step)} | {f"other/{n}": 1.0 for n in range(60)}
            file.write(json.dumps({"step": step, "time": 0.0, "attempt": 1, "values": values}) + "\n")
    found = curve_summary(folder)
    assert len(found.points) == POINTS
    assert (found.points[-1], found.last["loss"]) == (2000.0, 0.0)
    assert [one["name"] for one in key_values(found.last)] == ["reward", "kl"]


def test_a_number_that_stands_in_few_records_is_found(folder):
    """PPO knows the rewards of a phase when it begins: its other steps have none."""
    writer = RunWriter(folder)
    for step in range(1, 49):
        writer.metric(step, {"loss": 0.0} | ({"reward": step / 8, "kl": 0.5} if step % 8 == 1 else {}))
    found = curve_summary(folder)
    assert found.points == tuple(step / 8 for step in range(1, 49, 8))
    assert [(one["name"], one["value"]) for one in key_values(found.last)] == [("reward", 41 / 8), ("kl", 0.5)]
