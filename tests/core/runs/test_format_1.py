"""A frozen run folder of format 1, made by hand: what it says is what readers must say, for ever."""

import math
import shutil

import numpy as np
import pytest

from llf_core.runs import Checkpoints, Inbox, RunReader, list_runs, open_run, read_status
from llf_core.runs.status import BrokenRunError

ID = "20261124-142530-smollm2-sft-lora"


@pytest.fixture
def run(format_1):
    return open_run(ID, format_1)


def test_status(run):
    status = RunReader(run).status()
    assert (status.state, status.step, status.total, status.attempt) == ("stopped", 93, 141, 2)
    assert (status.exit_code, status.pid, status.ticks) == (0, 4711, 247026)
    assert status.trainer.started == 1764002731.12
    assert status.supervisor_process.pid == 4709
    assert status.best == {"step": 75, "value": 1.349, "metric": "eval_loss"}
    assert status.final
    assert status.has_ended
    assert not status.is_on_this_host


def test_metrics_take_the_highest_attempt_and_skip_what_is_no_record(run):
    columns = RunReader(run).metrics()
    assert columns.names == ["loss", "learning_rate", "grad_norm", "tokens", "eval_loss"]
    assert columns.steps("loss").tolist() == [1, 2, 3, 4]
    assert columns.values("loss").tolist() == [2.5, 2.25, 2.0, 1.75]
    assert columns.values("grad_norm").tolist() == [1.25, math.inf]
    assert columns.steps("eval_loss").tolist() == [2]
    assert columns.values("learning_rate").tolist() == [3e-05, 6e-05, 9e-05, 0.00012]
    assert columns.last("tokens") == 2600.0
    assert columns.last("nothing") is None
    steps, times = columns.times()
    assert steps.tolist() == [1, 2, 3, 4]
    assert times.tolist() == [1764002790.2, 1764002795.0, 1764002999.0, 1764003003.0]


def test_the_first_attempt_alone_has_its_nan(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "runs" / ID)
    copy = open_run(ID, tmp_path)
    copy.metrics.write_text("".join(run.metrics.read_text().splitlines(keepends=True)[:4]))
    assert np.array_equal(RunReader(copy).metrics().values("loss"), [2.5, 2.25, math.nan], equal_nan=True)


def test_events_and_samples(run):
    reader = RunReader(run)
    events = reader.events()
    assert [event["type"] for event in events] == [
        "created", "state", "data", "evaluation", "state", "resumed", "of_the_future",
        "request", "checkpoint", "answer", "state",
    ]  # fmt: skip
    assert events[3]["values"] == {"eval_loss": 2.125, "eval_perplexity": math.inf}
    assert reader.events() == []
    assert [sample["text"] for sample in reader.samples()] == ["NaN", "A tower with a light."]


def test_log_meta_and_checkpoints(run):
    reader = RunReader(run)
    assert reader.log_tail(2) == "downloading 100%\n14:32:42  Stopped."
    assert reader.meta() == {"revision": 3, "name": "smollm2-sft-lora", "tags": ["first"], "note": "the lighthouse"}
    checkpoints = Checkpoints(run)
    assert checkpoints.list() == [2, 93]
    assert checkpoints.latest() == run.checkpoints / "checkpoint-93"
    assert not checkpoints.complete(75)


def test_control(run):
    good, bad = Inbox(run).scan()
    assert (good.id, good.type, good.by, good.time) == ("12345678", "checkpoint", "monitor", 1764003170.5)
    assert (bad.type, bad.path.name) == ("unreadable", "1764003171500000000-ffffffff.json")


def test_listing(format_1):
    page = list_runs(format_1)
    assert page.total == 1
    row = page.json()["runs"][0]
    assert row == {
        "id": ID, "name": "smollm2-sft-lora", "state": "stopped", "step": 93, "total": 141, "attempt": 2,
        "created": 1764002730.5, "ended": 1764003162.25, "heartbeat": 1764003161.5, "step_seconds": 4.1,
        "per_step": 4.1, "eval_loss": 2.125,
        "reason": "Stopped at step 93 of 141 with checkpoint-93.", "device": "cpu", "host": "ws-1", "place": "",
        "tags": ["first"],
        "model": "smollm2-135m-instruct", "dataset": "lighthouse", "stage": "sft", "method": "lora",
        "note": "the lighthouse", "spark": [2.5, 2.25, 2.0, 1.75], "loss": 1.75, "counted": [], "remaining": None,
        "evaluated": {"eval_loss": 2.125}, "weights": True, "finding": None,
    }  # fmt: skip


def test_a_format_of_the_future_is_broken_and_says_so(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "runs" / ID)
    copy = open_run(ID, tmp_path)
    copy.status.write_text('{"format": 2, "state": "running"}')
    with pytest.raises(BrokenRunError, match="format 2"):
        read_status(copy)
    (row,) = list_runs(tmp_path).rows
    assert row.state == "broken"
    assert "upgrade llf" in row.reason
