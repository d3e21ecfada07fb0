"""SIGKILL at every write boundary: what was said to be saved is there, and nobody sees a half."""

import json

import pytest

from llf_core.runs import (
    Checkpoints,
    Inbox,
    RunReader,
    RunWriter,
    create_run,
    home,
    list_runs,
    read_meta,
    read_status,
    status,
)
from llf_core.runs.states import FINAL

TRAIN = """
import sys
from pathlib import Path
from llf_core.runs import *
folder = RunFolder(Path(sys.argv[1]))
log = open(sys.argv[2], "a", buffering=1)
writer = RunWriter(folder, 1)
writer.status(state="running", total=5)
checkpoints = Checkpoints(folder)
for step in range(1, 6):
    writer.metric(step, {"loss": step / 7})
    print("metric", step, file=log)
    writer.status(step=step)
    print("status", step, file=log)
    path = checkpoints.path(step)
    path.mkdir(parents=True)
    (path / "model").write_bytes(b"x" * step)
    checkpoints.finish(step)
    print("checkpoint", step, file=log)
    writer.event("checkpoint", step=step)
    print("event", step, file=log)
    for removed in checkpoints.prune(keep=2, best=1):
        print("removed", removed, file=log)
update_meta(folder, note="trained")
print("meta 2", file=log)
writer.close("finished")
print("closed 1", file=log)
"""
POINTS = [
    "metrics.append", "metrics.appended", "events.append", "events.appended", "status.written", "status.renamed",
    "checkpoint.flushed", "complete.written", "complete.renamed", "checkpoint.uncounted", "checkpoint.removed",
    "meta.written", "meta.renamed",
]  # fmt: skip


def said(path):
    """What the process told that it had saved: kind -> steps."""
    told = {}
    for line in path.read_text().splitlines():
        kind, step = line.split()
        told.setdefault(kind, []).append(int(step))
    return told


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_kill_at_any_write_loses_nothing(folder, python, tmp_path, point, count):
    done = python(TRAIN, folder.path, tmp_path / "said", fault=f"{point}:{count}")
    died = done.returncode == -9
    assert died or done.returncode == 0, done.stderr
    # update_meta comes once, prune removes twice (checkpoints 2 and 3, since 1 is the best).
    most = {"meta.written": 1, "meta.renamed": 1, "checkpoint.uncounted": 2, "checkpoint.removed": 2}
    assert died == (count <= most.get(point, 9))
    told = said(tmp_path / "said")
    reader = RunReader(folder)
    assert set(told.get("metric", [])) <= set(reader.metrics().steps("loss").tolist())
    assert reader.metrics().values("loss").tolist() == [s / 7 for s in reader.metrics().steps("loss").tolist()]
    events = reader.events()
    assert set(told.get("event", [])) <= {event["step"] for event in events if event["type"] == "checkpoint"}
    read = read_status(folder)
    assert read.step >= max(told.get("status", [0]))
    assert (read.state in FINAL) or "closed" not in told
    kept = Checkpoints(folder).list()
    whole = set(told.get("checkpoint", [])) - set(told.get("removed", []))
    # The one whose removal was under way may be there or not, but it is never one to keep.
    newest = sorted(told.get("checkpoint", []))
    must_stay = {step for step in whole if step == 1 or step in newest[-2:]}
    assert must_stay <= set(kept)
    for step in kept:
        assert (Checkpoints(folder).path(step) / "model").stat().st_size == step
    assert read_meta(folder)["revision"] >= max(told.get("meta", [1]))


@pytest.mark.parametrize("point", ["status.written", "complete.written", "metrics.append"])
def test_after_a_kill_the_next_attempt_writes_on(folder, python, tmp_path, point):
    python(TRAIN, folder.path, tmp_path / "said", fault=f"{point}:3")
    status.update(folder, state="failed", reason="killed")
    status.begin_attempt(folder, 2)
    writer = RunWriter(folder, 2)
    writer.metric(9, {"loss": 9.0})
    assert RunReader(folder).metrics().last("loss") == 9.0
    checkpoints = Checkpoints(folder)
    path = checkpoints.path(9)
    path.mkdir(parents=True)
    (path / "model").write_bytes(b"x")
    checkpoints.finish(9)
    checkpoints.prune(keep=1)
    assert checkpoints.list() == [9]
    assert [entry.name for entry in folder.checkpoints.iterdir()] == ["checkpoint-9"]


CREATE = """
from llf_core.runs import create_run
print(create_run("a: 1\\n", "x").id, flush=True)
"""


@pytest.mark.parametrize(
    "point", ["meta.written", "meta.renamed", "events.append", "events.appended", "status.written", "status.renamed"]
)
def test_a_run_that_is_being_made_is_there_whole_or_not_at_all(python, point):
    done = python(CREATE, fault=f"{point}:1")
    assert done.returncode == -9
    assert list_runs().total == 0
    assert create_run("a: 1\n", "x").path.is_dir()
    assert list_runs().total == 1


SEND = """
import sys
from pathlib import Path
from llf_core.runs import RunFolder, send_request
print(send_request(RunFolder(Path(sys.argv[1])), "stop"), flush=True)
"""


@pytest.mark.parametrize(("point", "there"), [("control.written", 0), ("control.renamed", 1)])
def test_a_request_is_there_whole_or_not_at_all(folder, python, point, there):
    assert python(SEND, folder.path, fault=f"{point}:1").returncode == -9
    assert [request.type for request in Inbox(folder).scan()] == ["stop"] * there


def test_a_fault_can_be_meant_for_one_program(folder, python):
    assert python(SEND, folder.path, fault="control.written:1@supervisor_process").returncode == 0


def test_without_the_variable_nothing_happens(folder, python, tmp_path):
    assert python(TRAIN, folder.path, tmp_path / "said").returncode == 0
    assert read_status(folder).state == "finished"
    assert Checkpoints(folder).list() == [1, 4, 5]
    assert [json.loads(line)["type"] for line in folder.events.read_text().splitlines()] == [
        "created", *["checkpoint"] * 5, "state",
    ]  # fmt: skip
    assert list_runs(home()).rows[0].state == "finished"
