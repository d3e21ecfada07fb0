"""Deleting is a move; cleaning is not."""

import os
import shutil
import threading
import time

import pytest

from llf_core.runs import (
    Checkpoints,
    RunFolder,
    clean,
    create_run,
    delete_run,
    deleted_runs,
    find_cleanable,
    folder_bytes,
    home,
    list_runs,
    open_run,
    read_status,
    remove_from_bin,
    restore_run,
    status,
)
from llf_core.runs.archive import move
from llf_core.runs.files import locked
from llf_core.runs.process import ProcessId


@pytest.fixture
def ended(folder):
    """A run that has finished, with a result and two checkpoints."""
    for step in (1, 2):
        path = Checkpoints(folder).path(step)
        path.mkdir(parents=True)
        (path / "model").write_bytes(b"x" * 1000)
        Checkpoints(folder).finish(step)
    folder.output.mkdir()
    status.update(folder, state="finished")
    return folder


def test_delete_moves_and_restore_brings_back(ended):
    before = folder_bytes(ended.path)
    target = delete_run(ended.id)
    assert target == home() / "bin" / ended.id
    assert list_runs().total == 0
    with pytest.raises(FileNotFoundError):
        delete_run(ended.id)
    assert restore_run(ended.id) == ended
    assert folder_bytes(ended.path) == before
    assert list_runs().total == 1


def test_a_run_that_goes_is_not_deleted(folder):
    status.update(folder, state="running", **ProcessId.own().json())
    with pytest.raises(RuntimeError, match="is running"):
        delete_run(folder.id)
    assert open_run(folder.id)


def test_lost_and_broken_runs_can_be_deleted(folder):
    status.update(folder, state="running", pid=2**22 - 1, started=1.0)
    delete_run(folder.id)
    broken = create_run("a: 1\n", "broken")
    broken.status.unlink()
    delete_run(broken.id)
    assert list_runs().total == 0


def test_paths_are_no_ids():
    for act in (delete_run, restore_run):
        with pytest.raises(ValueError, match="is not a run id"):
            act("../../etc")


def test_restore_wants_a_run_in_the_bin_and_a_free_place(ended):
    with pytest.raises(FileNotFoundError, match="bin does not contain"):
        restore_run(ended.id)
    delete_run(ended.id)
    (home() / "runs" / ended.id).mkdir(parents=True)
    with pytest.raises(FileExistsError, match="already"):
        restore_run(ended.id)


def test_a_file_in_place_of_the_bin_is_no_run_that_exists(ended):
    (home() / "bin").write_text("")
    for move_one in (delete_run, restore_run, remove_from_bin):
        with pytest.raises(NotADirectoryError):
            move_one(ended.id)
    assert open_run(ended.id)


def test_clean_empties_the_bin_and_counts_bytes(ended):
    assert clean().items == ()
    target = delete_run(ended.id)
    size = folder_bytes(target)
    assert find_cleanable().bytes == size
    assert clean().items == (target,)
    assert not target.exists()
    with pytest.raises(FileNotFoundError):
        restore_run(ended.id)


def test_clean_spares_what_is_newer_than_asked(ended):
    target = delete_run(ended.id)
    assert clean(days=1).items == ()
    os.utime(target, (time.time() - 2 * 86400,) * 2)
    assert clean(days=1).items == (target,)


def test_days_count_from_the_deletion_not_from_the_run(ended):
    os.utime(ended.path, (1, 1))
    delete_run(ended.id)
    assert find_cleanable(days=1).items == ()


def test_checkpoints_of_finished_runs_only(ended):
    going = create_run("a: 1\n", "going")
    path = Checkpoints(going).path(1)
    path.mkdir(parents=True)
    (path / "model").write_bytes(b"x")
    Checkpoints(going).finish(1)
    status.update(going, state="stopped")
    freed = clean(checkpoints=True, keep_latest=True)
    assert [item.name for item in freed.items] == ["checkpoint-1"]
    assert freed.bytes > 1000
    assert Checkpoints(ended).list() == [2]
    clean(checkpoints=True)
    assert Checkpoints(ended).list() == []
    assert Checkpoints(going).list() == [1]
    assert ended.output.is_dir()


def test_a_half_made_folder_goes_after_a_day(folder):
    half = home() / "runs" / ".new-1-aa"
    half.mkdir()
    assert find_cleanable().items == ()
    os.utime(half, (1, 1))
    assert clean().items == (half,)


def test_sizes_count_files_and_no_links(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "one").write_bytes(b"x" * 10)
    (tmp_path / "a" / "b" / "two").write_bytes(b"x" * 7)
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a")
    link = os.lstat(tmp_path / "a" / "loop").st_size
    assert folder_bytes(tmp_path / "a") == 17 + link
    assert folder_bytes(tmp_path / "none") == 0


def test_the_bin_lists_what_was_deleted_last_first(ended):
    other = create_run("model_name_or_path: tiny\n", "other")
    status.update(other, state="failed", reason="Out of memory.")
    size = folder_bytes(ended.path)
    for folder, deleted in ((ended, 1000.0), (other, 2000.0)):
        os.utime(delete_run(folder.id), (deleted, deleted))
    total, (first, second) = deleted_runs()
    assert (total, first.row.id, first.row.name, first.row.model) == (2, other.id, "other", "tiny")
    assert (first.row.reason, first.deleted) == ("Out of memory.", 2000.0)
    assert (second.row.id, second.bytes, second.json()["bytes"]) == (ended.id, size, size)
    assert [one.row.id for one in deleted_runs(offset=1, limit=1)[1]] == [ended.id]
    assert deleted_runs(home() / "nowhere") == (0, [])


def test_what_is_no_run_is_not_in_the_bin(ended, tmp_path):
    delete_run(ended.id)
    (home() / "bin" / "note.txt").write_text("x")
    (home() / "bin" / f".{ended.id}.1").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (home() / "bin" / "linked").symlink_to(tmp_path / "elsewhere")
    assert [one.row.id for one in deleted_runs()[1]] == [ended.id]
    for act in (restore_run, remove_from_bin):
        with pytest.raises(FileNotFoundError):
            act("linked")
    assert (tmp_path / "elsewhere").is_dir()


def test_what_is_removed_from_the_bin_is_gone(ended):
    delete_run(ended.id)
    remove_from_bin(ended.id)
    assert [entry.name for entry in (home() / "bin").iterdir() if entry.is_dir()] == []
    for act in (restore_run, remove_from_bin):
        with pytest.raises(FileNotFoundError):
            act(ended.id)
    with pytest.raises(ValueError, match="is not a run id"):
        remove_from_bin("../runs")


def at_once(*acts):
    """Does things in threads that begin together; what each raised, or None."""
    start, raised = threading.Barrier(len(acts)), [None] * len(acts)

    def do(place):
        start.wait()
        try:
            acts[place]()
        except (OSError, RuntimeError) as error:
            raised[place] = type(error)

    threads = [threading.Thread(target=do, args=(place,)) for place in range(len(acts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_two_that_delete_one_run_leave_it_in_the_bin(ended):
    for _ in range(40):
        raised = at_once(*[lambda: delete_run(ended.id)] * 3)
        assert sorted(map(str, raised)) == ["<class 'FileNotFoundError'>"] * 2 + ["None"]
        restore_run(ended.id)


def test_a_run_that_is_deleted_is_not_resumed_meanwhile(ended, monkeypatch):
    raised = []

    def resume():
        try:
            status.begin_attempt(ended, 2)
        except (OSError, ValueError) as error:
            raised.append(error)

    def slowly(source, target):
        thread.start()
        thread.join(0.3)
        move(source, target)

    thread = threading.Thread(target=resume)
    monkeypatch.setattr("llf_core.runs.bin.move", slowly)
    binned_run = delete_run(ended.id)
    thread.join()
    assert len(raised) == 1
    assert read_status(RunFolder(binned_run)).state == "finished"


@pytest.mark.parametrize("remove", ["clean", "remove_from_bin"])
def test_two_that_remove_one_run_from_the_bin(ended, monkeypatch, remove):
    """The other process is there first."""
    delete_run(ended.id)
    original = shutil.rmtree

    def twice(path, **options):
        original(path)
        original(path, **options)

    monkeypatch.setattr(shutil, "rmtree", twice)
    clean() if remove == "clean" else remove_from_bin(ended.id)
    assert [entry.name for entry in (home() / "bin").iterdir() if entry.name != ".lock"] == []


def test_two_that_restore_one_run_bring_it_back_once(ended):
    for _ in range(40):
        delete_run(ended.id)
        raised = at_once(*[lambda: restore_run(ended.id)] * 3)
        assert raised.count(None) == 1
        assert set(raised) <= {None, FileNotFoundError, FileExistsError}


@pytest.mark.parametrize("remove", [remove_from_bin, lambda _: clean()])
def test_a_run_is_restored_whole_or_removed_whole(ended, remove):
    """Also where both are asked at the same time."""
    ways = set()
    for number in range(20):
        folder = create_run("a: 1\n", f"run {number}")
        for name in range(50):
            (folder.path / f"{name}").write_text("x")
        status.update(folder, state="finished")
        before = sorted(entry.name for entry in folder.path.iterdir())
        delete_run(folder.id)
        restored, _ = at_once(lambda one=folder: restore_run(one.id), lambda one=folder: remove(one.id))
        ways.add(restored)
        if restored is None:
            assert sorted(entry.name for entry in folder.path.iterdir()) == before
        else:
            assert restored is FileNotFoundError
            assert not folder.path.exists()


def test_a_home_given_with_a_tilde_is_the_users(ended, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(ended.home.parent))
    given = f"~/{ended.home.name}"
    assert delete_run(ended.id, given) == ended.home / "bin" / ended.id
    assert deleted_runs(given)[0] == 1
    assert restore_run(ended.id, given).path == ended.path
    assert [row.id for row in list_runs(given).rows] == [ended.id]
    assert find_cleanable(given).items == ()
    assert not (tmp_path / "~").exists()


def test_a_link_in_the_bin_counts_nothing(ended, tmp_path):
    delete_run(ended.id)
    size = find_cleanable().bytes
    (tmp_path / "large").write_bytes(b"x" * 1000)
    (home() / "bin" / "20261127-link").symlink_to(tmp_path / "large")
    found = find_cleanable()
    assert len(found.items) == 2
    assert found.bytes == size


def test_sizes_are_summed_while_others_use_the_bin(ended, monkeypatch):
    deleted = delete_run(ended.id)

    def free(path):
        with locked(home() / "bin" / ".lock", 0.0):
            return folder_bytes(path)

    monkeypatch.setattr("llf_core.runs.bin.folder_bytes", free)
    removed = clean()
    assert removed.items == (deleted,)
    assert removed.bytes > 64 * 1024  # the run's reserve
