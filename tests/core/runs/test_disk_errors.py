"""A disk that takes nothing more, whatever the reason: the cause is told all the same."""

import errno
import os
import resource
import subprocess
import tempfile

import pytest

from llf_core.launch.local_process import start_supervisor
from llf_core.runs import RunFolder, RunReader, RunWriter, create_run, list_runs, read_status, status
from llf_core.runs.disk_errors import failure_message, is_disk_error

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """Mounts a small disk as `LLF_HOME`, and mounts it again with other options."""
    home = tmp_path / "disk"
    home.mkdir()
    monkeypatch.setattr(status, "MEMORY", tmp_path)
    monkeypatch.setenv("LLF_HOME", str(home))

    def mount(options):
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "llf-test", home], check=True)
        return home

    yield mount
    subprocess.run(["umount", "-l", home], check=True)


def lost(folder):
    """A run whose processes are gone."""
    return status.update(folder, state="running", step=3, total=8, pid=2**22 + 1, started=1.0, ticks=1)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.EROFS, "Read-only file system"), True),
        (OSError(errno.EIO, "Input/output error"), True),
        (OSError(errno.ESTALE, "Stale file handle"), True),
        (ValueError("Error while serializing: I/O error: Read-only file system (os error 30)"), True),
        (ValueError("I/O error (os error 13)"), False),
        (ValueError("I/O error (os error 280)"), False),
        (OSError(errno.EACCES, "No space left on device"), False),
    ],
)
def test_what_is_said_of_a_disk(error, told):
    assert is_disk_error(error) is told


def test_a_run_whose_folder_is_gone_with_its_disk(tmp_path):
    what, remedy = failure_message(RunFolder(tmp_path / "gone" / "run"), OSError(errno.EIO, "Input/output error"))
    assert what.startswith("The disk at / failed: Input/output error. There is no checkpoint yet")
    assert remedy.startswith("Check the disk")


def test_a_full_disk_where_no_folder_takes_a_temporary_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)  # Python looks for one at its first use
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(FileNotFoundError):
            tempfile.gettempdir()
        what, _ = failure_message(RunFolder(tmp_path / "run"), OSError(errno.EDQUOT, "Disk quota exceeded"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert what.startswith("Your quota of the disk at ")


def test_a_disk_that_becomes_read_only(disk):
    home = disk("size=4m")
    folder = create_run("a: 1\n", "read-only")
    lost(folder)
    disk("remount,ro")
    words = f"The disk at {home} is read-only: files cannot be written."
    # Nobody could write a word: what the disk is like tells.
    shown = RunReader(folder).status()
    assert shown.state == "lost"
    assert shown.reason.startswith(f"The run's processes exited without a final status, at step 3 of 8. {words}")
    # A library that loses the number of the error is no full disk.
    assert failure_message(folder, RuntimeError("unexpected pos 64 vs 0"))[0].startswith(words)
    # No run begins there.
    with pytest.raises(OSError, match="Runs cannot start") as refused:
        create_run("a: 1\n", "another")
    assert words in str(refused.value.strerror)


def test_a_disk_without_inodes(disk):
    home = disk("size=4m,nr_inodes=60")
    folder = create_run("a: 1\n", "inodes")
    lost(folder)
    with pytest.raises(OSError, match="No space left") as full:
        any((home / f"file-{number}").touch() for number in range(60))
    words = f"The disk at {home} is out of inodes: 0 of its 60 inodes are free, and a run needs about 32."
    assert failure_message(folder, full.value)[0].startswith(words)
    assert words in RunReader(folder).status().reason
    with pytest.raises(OSError, match="Runs cannot start") as refused:
        create_run("a: 1\n", "another")
    assert words in str(refused.value.strerror)


def test_a_last_word_that_the_disk_does_not_take(disk):
    disk("size=4m")
    folder = create_run("a: 1\n", "unwritten")
    lost(folder)
    disk("remount,ro")
    with pytest.raises(OSError, match="Read-only file system"):
        RunWriter(folder, 1).close("failed", "The loss is not a number. Lower the learning rate.")
    disk("remount,rw")
    # Its folder does not have it; it is told all the same, by the list too, until the run goes on.
    assert read_status(folder).state == "running"
    shown = RunReader(folder).status()
    assert (shown.state, shown.reason) == ("lost", "The loss is not a number. Lower the learning rate.")
    assert list_runs().rows[0].reason == shown.reason
    status.begin_attempt(folder, 2)
    lost(folder)
    assert "without a final status" in RunReader(folder).status().reason


def test_a_kept_word_of_another_user_is_not_read(disk, tmp_path):
    disk("size=4m")
    folder = create_run("a: 1\n", "kept")
    status.keep_reason(folder, 1, "mine")
    assert status.kept_reason(folder, 1) == "mine"
    assert status.kept_reason(folder, 2) is None
    (place,) = tmp_path.glob("llf-*")
    place.chmod(0o777)
    assert status.kept_reason(folder, 1) is None


def test_an_attempt_whose_disk_took_not_even_its_processes_goes_on_at_once(disk):
    disk("size=4m")
    folder = create_run("a: 1\n", "unnamed")
    disk("remount,ro")
    with pytest.raises(RuntimeError, match="is read-only: files cannot be written"):
        start_supervisor(folder, None, ["/bin/true"])
    assert RunReader(folder).status().state == "lost"
    assert "is read-only" in RunReader(folder).status().reason
    disk("remount,rw")
    assert status.begin_attempt(folder, 2).state == "created"
    assert RunReader(folder).status().state == "created"


def test_without_a_folder_for_temporary_files_no_reason_is_kept(monkeypatch, tmp_path):
    """`tempfile` looks for one that takes a file, which a full disk does not."""
    folder = create_run("a: 1\n", "kept")
    monkeypatch.setattr(status, "MEMORY", tmp_path / "none")
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "missing")])
    with pytest.raises(FileNotFoundError):
        tempfile.gettempdir()
    status.keep_reason(folder, 1, "mine")
    assert status.kept_reason(folder, 1) is None
    status.forget_reason(folder)
