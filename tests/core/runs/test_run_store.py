"""A run's copy elsewhere: what is sent again, and that only whole states are taken back."""

import json
import os

import pytest

from llf_core.runs import Checkpoints, create_run, status
from llf_core.runs.process import ProcessId, boot_id, host
from llf_core.runs.run_store import RunStore, SyncError, TakenOverError, TornError, check_writable


@pytest.fixture
def run():
    """A run with a complete checkpoint of 1,000 bytes."""
    folder = create_run("model_name_or_path: owner/model\ndataset: llf_demo\n", "tuned")
    save(folder, 2)
    return folder


def save(folder, step, weights=b"w" * 1000):
    path = Checkpoints(folder).path(step)
    path.mkdir(parents=True)
    (path / "weights").write_bytes(weights)
    (path / "shared").write_bytes(b"s" * 500)
    Checkpoints(folder).finish(step)


@pytest.fixture
def store(tmp_path, run):
    return RunStore(f"{tmp_path}/place/{run.id}")


def content(folder):
    return {
        str(one.relative_to(folder)): one.read_bytes()
        for one in folder.rglob("*")
        if one.is_file() and one.name not in {".reserve", "status.lock"}
    }


def test_a_state_comes_back_as_it_was_and_is_sent_once(run, store, tmp_path):
    first = store.send(run, 1)
    before = content(run.path)
    assert first.bytes == sum(len(one) for one in before.values())
    store.fetch(first.state, tmp_path / "back")
    assert content(tmp_path / "back") == before
    again = store.send(run, 1)
    assert (again.files, again.bytes) == (0, 0)
    save(run, 4, b"x" * 1000)
    third = store.send(run, 1)  # `shared` is there; the listing of a checkpoint names its step, so it is new
    assert third.bytes == 1000 + len((Checkpoints(run).path(4) / "complete.json").read_bytes())
    assert [one.step for one in store.states()] == [4, 2]


def test_lines_that_are_being_written_are_left_out(run, store):
    whole = run.events.read_bytes()
    with run.events.open("ab") as file:
        file.write(b'{"type": "half')
    assert store.send(run, 1).state.files["events.jsonl"][0] == len(whole)


def test_old_states_go_but_one_of_an_earlier_checkpoint_stays(run, store, tmp_path):
    store.send(run, 1)
    for step in (4, 6):
        save(run, step, bytes([step]) * 1000)
        store.send(run, 1)
    store.send(run, 1)
    assert [(one.number, one.step) for one in store.states()] == [(4, 6), (2, 4)]
    place = tmp_path / "place" / run.id
    named = {sha for one in store.states() for _, sha in one.files.values()}
    assert {one.name for one in (place / "files").iterdir()} == named


@pytest.mark.parametrize("damage", ["truncate", "remove", "state", "hash", "no state"])
def test_a_torn_state_is_not_taken(run, store, tmp_path, damage):
    store.send(run, 1)
    save(run, 4, b"x" * 1000)
    newest = store.send(run, 1).state
    place = tmp_path / "place" / run.id
    weights = place / "files" / newest.files["checkpoints/checkpoint-4/weights"][1]
    named = place / f"state-{newest.number:09d}.json"
    if damage == "truncate":
        os.truncate(weights, 999)
    elif damage == "remove":
        weights.unlink()
    elif damage == "state":
        os.truncate(named, named.stat().st_size - 10)
    elif damage == "no state":
        named.unlink()
    else:
        weights.write_bytes(b"y" * 1000)
    states = RunStore(store.url).states()
    if damage == "hash":
        with pytest.raises(TornError, match="has another hash"):
            store.fetch(states.pop(0), tmp_path / "back")
    assert [one.step for one in states] == [2]
    store.fetch(states[0], tmp_path / "before")
    assert "checkpoints/checkpoint-2/weights" in content(tmp_path / "before")


@pytest.mark.parametrize("name", ["../other/config.yaml", "/etc/passwd", "output/../../x", "control/stop.json"])
def test_a_state_that_names_other_files_is_none(run, store, tmp_path, name):
    number = store.send(run, 1).state.number
    path = tmp_path / "place" / run.id / f"state-{number:09d}.json"
    value = json.loads(path.read_text())
    value["files"][name] = value["files"]["config.yaml"]
    path.write_text(json.dumps(value))
    assert store.states() == []


def test_an_upload_that_broke_off_is_no_state_and_is_sent_again(run, store, tmp_path):
    whole = store.send(run, 1).state
    save(run, 4, b"x" * 1000)
    path = Checkpoints(run).path(4) / "weights"
    broken = tmp_path / "place" / run.id / "files" / whole.files["checkpoints/checkpoint-2/weights"][1]
    broken.write_bytes(path.read_bytes()[:10])  # of the name of another content, as far as a size says
    assert store.states() == []
    assert store.send(run, 1).state == store.states()[0]


def test_a_place_is_checked_before_a_run(tmp_path):
    check_writable(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SyncError, match="none does not exist"):
        check_writable(f"{tmp_path}/none")
    with pytest.raises(SyncError, match="Create it, or set `sync_to`"):
        check_writable(f"file://{tmp_path}/none")
    (tmp_path / "file").write_text("x")
    with pytest.raises(SyncError, match="does not exist"):
        check_writable(f"{tmp_path}/file")


def test_the_machine_that_trains_is_told_by_its_heartbeat(run, store, tmp_path):
    assert store.training_message() == ""
    status.update(run, state="running", pid=os.getpid(), started=ProcessId.own().started, ticks=ProcessId.own().ticks)
    store.beat(status.read_status(run))
    assert f"{host()} still trains this run" in store.training_message()
    path = tmp_path / "place" / run.id / "heartbeat.json"
    beat = json.loads(path.read_text())
    assert beat["boot_id"] == boot_id()
    for changes, trains in [
        ({"host": "box"}, True),
        ({"host": "box", "time": beat["time"] - 70}, False),
        ({"boot_id": "other"}, True),  # another machine may have the name of this one
        ({"state": "stopped"}, False),
        ({"processes": [beat["processes"][0] | {"started": 1.0, "ticks": 1}]}, False),
    ]:
        path.write_text(json.dumps(beat | changes))
        assert bool(store.training_message()) is trains, changes


def test_a_run_that_another_machine_has_continued_is_not_overwritten(run, store):
    store.send(run, 2)
    with pytest.raises(TakenOverError, match=r"was continued on .* \(attempt 2\)"):
        store.send(run, 1)
