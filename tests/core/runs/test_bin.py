"""Deleting is a move; cleaning is not."""

import os
import time

import pytest

from llf_core.runs import (
    Checkpoints,
    clean,
    cleanable,
    create_run,
    delete_run,
    folder_bytes,
    home,
    list_runs,
    open_run,
    restore_run,
    status,
)
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
        with pytest.raises(ValueError, match="no run id"):
            act("../../etc")


def test_restore_wants_a_run_in_the_bin_and_a_free_place(ended):
    with pytest.raises(FileNotFoundError, match="bin holds no"):
        restore_run(ended.id)
    delete_run(ended.id)
    (home() / "runs" / ended.id).mkdir(parents=True)
    with pytest.raises(FileExistsError, match="already"):
        restore_run(ended.id)


def test_clean_empties_the_bin_and_counts_bytes(ended):
    assert clean().items == ()
    target = delete_run(ended.id)
    size = folder_bytes(target)
    assert cleanable().bytes == size
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
    assert cleanable(days=1).items == ()


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
    assert cleanable().items == ()
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
