"""How far a run came is told by what it wrote, where its status is behind."""

import dataclasses

from llf_core.runs import Checkpoints, RunReader, RunWriter, list_runs, read_status, status
from llf_core.runs.listing import shown_status
from llf_core.runs.pace import last_logged_step
from llf_core.runs.process import ProcessId

GONE = ProcessId(2**22 - 1, 1.0, 1)


def lost(folder, step=0):
    return status.update(folder, state="running", step=step, total=9, **GONE.json())


def checkpoint(folder, step):
    path = Checkpoints(folder).path(step)
    path.mkdir(parents=True)
    (path / "model").write_text("x")
    Checkpoints(folder).finish(step)


def test_the_last_record_of_this_attempt_counts(folder):
    stored = lost(folder, step=2)
    assert last_logged_step(folder, stored) == 2
    writer = RunWriter(folder, 1)
    for step in (1, 2, 3, 4):
        writer.metric(step, {"loss": 1.0})
    assert last_logged_step(folder, stored) == 4
    assert last_logged_step(folder, dataclasses.replace(stored, attempt=2)) == 2
    with folder.metrics.open("a") as file:
        file.write('{"step": "many", "attempt": 1}\n')
        file.write(f'{{"step": 1{"0" * 400}, "attempt": 1}}\n{{"step": 7, "att')
    assert last_logged_step(folder, stored) == 4


def test_a_checkpoint_proves_its_step(folder):
    checkpoint(folder, 5)
    assert last_logged_step(folder, lost(folder, step=2)) == 5


def test_a_lost_run_says_how_far_it_came_and_what_is_safe(folder):
    lost(folder)
    RunWriter(folder, 1).metric(6, {"loss": 1.0})
    assert shown_status(folder).reason == (
        "The run's processes exited without a final status, at step 6 of 9. "
        "There is no checkpoint yet: resume starts over."
    )
    checkpoint(folder, 5)
    for seen in (RunReader(folder).status(), list_runs().rows[0]):
        assert (seen.state, seen.step) == ("lost", 6)
        assert seen.reason.endswith("checkpoint-5 is complete: resume continues from it.")
    assert read_status(folder).step == 0  # a reader changes nothing
