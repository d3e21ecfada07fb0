"""The handle on a run: metrics, events, summary."""

import math

import pandas as pd
import pytest

from llf_core.launch import Run, active_runs, attach
from llf_core.runs import RunWriter, create_run, delete_run, status


@pytest.fixture
def folder():
    return create_run("model_name_or_path: tiny\nstage: sft\n", "x")


def test_attach_wants_a_run_that_is_there(folder):
    assert attach(folder.id).folder == folder
    with pytest.raises(FileNotFoundError, match="No run"):
        attach("20000101-000000-none")
    with pytest.raises(ValueError, match="is not a run id"):
        attach("../x")


def test_a_deleted_run_still_has_a_name(folder):
    status.update(folder, state="failed")
    run = Run(folder)
    delete_run(run.id)
    assert repr(run) == f"Run('{run.id}', broken)"


def test_metrics_is_a_frame_by_step(folder):
    empty = Run(folder).metrics()
    assert (empty.shape, empty.index.name) == ((0, 0), "step")
    writer = RunWriter(folder, 1)
    writer.metric(1, {"loss": 2.0, "tokens": 10})
    writer.metric(3, {"eval_loss": math.inf})
    writer.metric(2, {"loss": math.nan})
    frame = Run(folder).metrics()
    expected = pd.DataFrame(
        {
            "loss": [2.0, math.nan, math.nan],
            "tokens": [10.0, math.nan, math.nan],
            "eval_loss": [math.nan, math.nan, math.inf],
        },
        index=pd.Index([1, 2, 3], name="step"),
    )
    pd.testing.assert_frame_equal(frame, expected)


def test_events_are_all_each_time(folder):
    run = Run(folder)
    assert len(run.events()) == len(run.events()) == 1


def test_active_runs_names_what_uses_the_device(started, until):
    run = started("train")
    until(lambda: run.state == "running")
    assert [row.id for row in active_runs()] == [run.id]
    run.kill()
    assert active_runs() == []


def test_summary_and_repr(started):
    import json

    run = started("short")
    run.wait(progress=False)
    facts = run.summary()
    assert facts["state"] == "finished"
    assert facts["checkpoints"] == [15, 20]
    assert facts["metrics"] == {"loss": 0.05}
    assert facts["output"] is None
    assert facts["bytes"] > 1000
    json.dumps(facts, allow_nan=False)
    assert repr(run) == f"Run('{run.id}', finished, step 20 of 20)"
