"""Runs on two disks: what is moved is whole at one of the two places, whenever the process ends."""

import errno
import os
import subprocess
from pathlib import Path

import pytest

from llf_core.launch import start
from llf_core.runs import archive, clean, create_run, delete_run, deleted_runs, home, list_runs, restore_run, status
from llf_core.runs.archive import copy_folder, move


@pytest.fixture
def another_disk(tmp_path, monkeypatch):
    """A folder on a disk of its own: a tmpfs where root may mount one, else by the error that two disks give."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=8m", "llf-test", str(place)], check=False, capture_output=True
        ).returncode
    )
    if not mounted:
        rename = Path.rename

        def on_it(path):
            return place in (path.parent.resolve(), *path.parent.resolve().parents)

        def between_disks(self, target):
            if on_it(self) != on_it(Path(target)):
                raise OSError(errno.EXDEV, "Invalid cross-device link", str(self))
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", between_disks)
    yield place
    if mounted:
        subprocess.run(["umount", str(place)], check=True)


@pytest.fixture(params=["runs", "bin"])
def on_two_disks(request, another_disk):
    """A home whose runs, or whose bin, are on another disk."""
    home().mkdir(parents=True)
    (another_disk / request.param).mkdir()
    (home() / request.param).symlink_to(another_disk / request.param)


def ended():
    folder = create_run("stage: sft\n", "far")
    status.update(folder, state="finished")
    folder.output.mkdir()
    (folder.output / "weights").write_bytes(b"x" * 1000)
    (folder.output / "link").symlink_to("weights")
    os.mkfifo(folder.path / "pipe")
    return folder


@pytest.mark.usefixtures("on_two_disks")
def test_a_run_goes_to_the_bin_and_back():
    folder = ended()
    target = delete_run(folder.id)
    assert not folder.path.exists()
    assert (target / "output" / "weights").read_bytes() == b"x" * 1000
    assert (target / "output" / "link").is_symlink()
    assert [one.row.id for one in deleted_runs()[1]] == [folder.id]
    back = restore_run(folder.id)
    assert (back.output / "weights").read_bytes() == b"x" * 1000
    assert [row.id for row in list_runs().rows] == [folder.id]
    assert not [left for place in ("runs", "bin") for left in (home() / place).glob(".new*")]
    (target.parent / ".new-1-x").mkdir()  # half a copy, of a process that was killed
    clean()
    assert not list(target.parent.glob(".new*"))


@pytest.mark.usefixtures("on_two_disks")
def test_a_full_disk_leaves_the_run_where_it_was(monkeypatch):
    folder = ended()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archive, "_flush_all", full)
    with pytest.raises(OSError, match="No space"):
        delete_run(folder.id)
    assert (folder.output / "weights").exists()
    assert [one.name for one in (home() / "bin").iterdir()] == [".lock"]
    assert [row.id for row in list_runs().rows] == [folder.id]


def test_rows_of_a_cell_reach_runs_on_another_disk(another_disk, monkeypatch):
    home().mkdir(parents=True)
    (another_disk / "runs").mkdir()
    (home() / "runs").symlink_to(another_disk / "runs")
    monkeypatch.setattr("llf_core.launch.launchers.launcher.start_supervisor", lambda *_: None)
    config = {"stage": "sft", "max_steps": 1}
    rows = [{"instruction": "a", "output": "b"}] * 3
    run = start.launch(config, rows=rows, name="far")
    assert [path.suffix for path in run.folder.data.iterdir()] == [".parquet"]
    assert not list((home() / "cache").iterdir())

    def refused(*_):
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(start, "move", refused)
    with pytest.raises(OSError, match="Permission denied"):
        start.launch(config, rows=rows, name="stray")
    assert [row.name for row in list_runs().rows] == ["far"]
    assert [one.name for one in (home() / "runs").iterdir()] == [run.id]


def test_copies_leave_out_what_is_no_file(tmp_path):
    source = tmp_path / "source"
    (source / "inner").mkdir(parents=True)
    (source / "inner" / "file").write_text("x")
    (source / "link").symlink_to("/etc/passwd")
    os.mkfifo(source / "pipe")
    copy_folder(source, tmp_path / "copy")
    assert sorted(str(path.relative_to(tmp_path / "copy")) for path in (tmp_path / "copy").rglob("*")) == [
        "inner",
        "inner/file",
    ]
    move(source / "inner" / "file", tmp_path / "moved")
    assert (tmp_path / "moved").read_text() == "x"


def test_a_source_that_cannot_be_renamed_stays_alone(another_disk, tmp_path, monkeypatch):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_text("x")
    rename = Path.rename

    def refused(self, target):
        if self.name == "source" and self.parent == Path(target).parent:
            raise OSError(errno.EACCES, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(OSError, match="Permission denied"):
        move(tmp_path / "source", another_disk / "target")
    assert (tmp_path / "source" / "file").read_text() == "x"
    assert list(another_disk.iterdir()) == []


def test_a_link_stays_a_link_on_another_disk(another_disk, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    move(tmp_path / "link", another_disk / "link")
    assert (another_disk / "link").readlink() == tmp_path / "folder"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["disk", "folder"]


def test_a_failed_deletion_leaves_the_older_run_in_the_bin(monkeypatch):
    folder = ended()
    older = home() / "bin" / folder.id
    older.mkdir(parents=True)
    (older / "status.json").write_text("older")

    def refused(*_):
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("llf_core.runs.bin.move", refused)
    with pytest.raises(OSError, match="Permission denied"):
        delete_run(folder.id)
    assert (older / "status.json").read_text() == "older"


@pytest.mark.usefixtures("on_two_disks")
def test_a_run_whose_id_is_taken_stays_in_the_bin():
    folder = ended()
    delete_run(folder.id)
    folder.path.mkdir()
    with pytest.raises(FileExistsError, match="Move its folder elsewhere: deleting it replaces this one"):
        restore_run(folder.id)
    assert [one.row.id for one in deleted_runs()[1]] == [folder.id]
