"""A checkpoint counts when it is whole, and never before or after."""

import errno
import json
import os
from pathlib import Path

import pytest

from llf_core.runs import Checkpoints


@pytest.fixture
def checkpoints(folder):
    return Checkpoints(folder)


@pytest.fixture
def write(checkpoints):
    """`write(step)`: a checkpoint of two files, one of them in a folder, that does not count yet."""

    def make(step, finish=True):
        path = checkpoints.path(step)
        (path / "inner").mkdir(parents=True)
        (path / "model.safetensors").write_bytes(b"x" * 100)
        (path / "inner" / "state.json").write_bytes(b"{}")
        if finish:
            checkpoints.finish(step)
        return path

    return make


def test_it_counts_when_finished(checkpoints, write):
    path = write(5, finish=False)
    assert not checkpoints.complete(5)
    assert checkpoints.finish(5) == 102
    assert checkpoints.complete(5)
    assert json.loads((path / "complete.json").read_text()) == {
        "format": 1, "step": 5, "files": {"inner/state.json": 2, "model.safetensors": 100},
    }  # fmt: skip


def test_a_name_that_is_not_utf_8_is_found_again(checkpoints, write):
    path = write(5, finish=False)
    Path(os.fsdecode(os.fsencode(path) + b"/of\xff")).write_text("x")
    assert checkpoints.finish(5) == 103
    assert checkpoints.complete(5)
    Path(os.fsdecode(os.fsencode(path) + b"/of\xff")).rename(path / "other")
    assert not checkpoints.complete(5)


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: (path / "model.safetensors").write_bytes(b"x" * 99),
        lambda path: (path / "model.safetensors").unlink(),
        lambda path: (path / "inner" / "state.json").write_bytes(b"{} "),
        lambda path: (path / "complete.json").unlink(),
        lambda path: (path / "complete.json").write_text('{"format": 1, "step": 5, "fi'),
        lambda path: (path / "complete.json").write_text('{"format": 1, "step": 5, "files": {}}'),
        lambda path: (path / "complete.json").write_text(
            '{"format": 2, "step": 5, "files": {"model.safetensors": 100}}'
        ),
        lambda path: (path / "complete.json").write_text("[]"),
    ],
)
def test_a_torn_one_never_counts(checkpoints, write, harm):
    write(3)
    harm(write(5))
    assert not checkpoints.complete(5)
    assert checkpoints.list() == [3]
    assert checkpoints.latest() == checkpoints.path(3)


def test_one_with_a_file_that_cannot_be_examined_does_not_count(checkpoints, write):
    path = write(5)
    inner = os.open(path, os.O_RDONLY)
    for _ in range((4090 - len(str(path))) // 201):  # the longest path that can be listed
        os.mkdir("d" * 200, dir_fd=inner)
        inner = os.open("d" * 200, os.O_RDONLY, dir_fd=inner)
    os.close(os.open("f" * 250, os.O_WRONLY | os.O_CREAT, dir_fd=inner))
    assert not checkpoints.complete(5)
    assert checkpoints.list() == []


def test_one_moved_to_another_step_does_not_count(checkpoints, write):
    write(5).rename(checkpoints.path(7))
    assert checkpoints.list() == []


def test_steps_are_ordered_as_numbers_and_other_names_are_ignored(checkpoints, write):
    for step in (100, 20, 3):
        write(step)
    (checkpoints.path(0).parent / "checkpoint-x").mkdir()
    (checkpoints.path(0).parent / "checkpoint-9").write_text("a file")
    assert checkpoints.list() == [3, 20, 100]
    assert checkpoints.latest().name == "checkpoint-100"


def test_a_run_without_any(checkpoints):
    assert checkpoints.list() == []
    assert checkpoints.latest() is None
    assert checkpoints.prune() == []


@pytest.mark.parametrize(
    ("keep", "best", "stay"),
    [(2, None, [4, 5]), (2, 2, [2, 4, 5]), (1, 5, [5]), (None, None, [1, 2, 3, 4, 5]), (9, None, [1, 2, 3, 4, 5]),
     (0, None, [5]), (2, 99, [4, 5])],
)  # fmt: skip
def test_prune_keeps_the_newest_and_the_best(checkpoints, write, keep, best, stay):
    for step in range(1, 6):
        write(step)
    assert checkpoints.prune(keep, best) == [step for step in range(1, 6) if step not in stay]
    assert checkpoints.list() == stay


def test_prune_removes_torn_ones_before_the_newest_whole_and_leaves_one_that_is_being_written(checkpoints, write):
    write(1, finish=False)
    write(2)
    write(3, finish=False)
    assert checkpoints.prune(2) == []
    assert not checkpoints.path(1).exists()
    assert checkpoints.path(3).exists()


def test_nothing_is_removed_while_no_other_is_whole(checkpoints, write):
    write(1, finish=False)
    assert checkpoints.prune(1) == []
    assert checkpoints.path(1).exists()


def test_what_cannot_be_listed_makes_no_checkpoint_complete(checkpoints, write, monkeypatch):
    write(4)
    path = write(5, finish=False)
    scandir, number = os.scandir, errno.EIO

    def fails(place="."):
        if Path(place).name == "inner":
            raise OSError(number, os.strerror(number))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", fails)
    with pytest.raises(OSError, match="Input/output error"):
        checkpoints.finish(5)
    assert not (path / "complete.json").exists()
    assert not checkpoints.complete(4)
    number = errno.EMFILE
    with pytest.raises(OSError, match="Too many open files"):
        checkpoints.complete(4)  # else `prune` would remove it


def test_another_spelling_of_a_step_is_no_checkpoint(checkpoints, write):
    for step in (5, 6):
        write(step)
    (checkpoints.path(5).parent / "checkpoint-006").mkdir()
    assert checkpoints.list() == [5, 6]
    assert checkpoints.prune(2) == []


def test_nothing_is_changed_through_a_link(checkpoints, write, tmp_path):
    target = tmp_path / "elsewhere"
    write(5).rename(target)
    before = (target / "complete.json").read_bytes()
    checkpoints.path(5).symlink_to(target)
    for change in (checkpoints.remove, checkpoints.finish):
        with pytest.raises(OSError, match="checkpoint-5 is a link"):
            change(5)
    assert (target / "complete.json").read_bytes() == before
    assert len(list(target.iterdir())) == 3


def test_a_folder_without_files_does_not_count(checkpoints):
    checkpoints.path(5).mkdir(parents=True)
    assert checkpoints.finish(5) == 0
    assert checkpoints.list() == []
