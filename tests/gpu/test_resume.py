"""A run that is killed goes on from its checkpoint as if nothing had been."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from llf_core.launch import Run
from llf_core.launch.local_process import start_supervisor
from llf_core.runs import Checkpoints, read_status, status
from llf_core.training.metrics_callback import ROUNDING
from llf_core.training.session import run_attempt
from tests.gpu.conftest import ON_CPU, events, losses
from tests.processes import end, processes_of

KILLED = Path(__file__).with_name("killed.py")
LONG = {"max_steps": 8, "save_steps": 2, "threads": 1}


@pytest.fixture
def whole(trained):
    """`whole(**changes)`: the losses of a run that nobody kills."""

    def run(**changes):
        folder, code = trained(**LONG, **changes)
        assert code == 0, read_status(folder).reason
        return losses(folder)

    return run


@pytest.mark.parametrize("changes", [{}, {"quantization_bit": 4}], ids=["lora", "qlora"])
def test_an_attempt_that_goes_on_makes_the_steps_of_one_that_never_stopped(make_run, whole, changes, monkeypatch, note):
    """In one process: the random states, the optimizer and the weights come back from the disk."""
    from llf_core.training.metrics_callback import MetricsCallback

    plain = MetricsCallback.on_log

    def fail(self, args, state, control, **kwargs):
        plain(self, args, state, control, **kwargs)
        if state.global_step == 5 and self.writer.attempt == 1:
            raise RuntimeError("the machine is gone")

    expected = whole(**changes)
    monkeypatch.setattr(MetricsCallback, "on_log", fail)
    folder = make_run(**LONG, **changes)
    assert run_attempt(folder, 1) == 1
    status.begin_attempt(folder, 2)
    assert run_attempt(folder, 2) == 0, read_status(folder).reason
    check(folder, expected, note)


def test_a_trainer_that_is_killed_goes_on_where_its_checkpoint_is(make_run, whole, llf_home, note):
    expected = whole()
    folder = make_run(**LONG)
    try:
        start_supervisor(folder, None, [sys.executable, str(KILLED), str(folder.path), "5"])
        run = Run(folder)
        run.wait(120, progress=False)
        shown = read_status(folder)
        assert shown.state == "failed", folder.log.read_text()[-2000:]
        assert "kill" in shown.reason.lower()
        assert Checkpoints(folder).latest().name == "checkpoint-4"
        run.resume()
        run.wait(120, progress=False)
        assert read_status(folder).state == "finished", read_status(folder).reason
    finally:
        end(processes_of(llf_home))
    check(folder, expected, note)


def check(folder, expected, note):
    (receipt,) = events(folder, "receipt")
    found = losses(folder)
    apart = max(abs(one - other) / other for one, other in zip(found, expected, strict=True))
    note(f"exact: {receipt['exact']}, largest difference of a loss {apart:.1e}")
    if ON_CPU:
        assert receipt["exact"]
        assert found == expected
    else:  # some kernels of a card add in the order in which their threads come
        assert receipt["exact"] or receipt["largest"] < ROUNDING
        assert found == pytest.approx(expected, rel=5 * ROUNDING)
