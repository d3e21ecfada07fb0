"""A disk that fills up, or a limit on file sizes, while the real trainer saves: the old checkpoint stays whole."""

import errno
import os
import re
import resource
import shutil
import subprocess
import sys
import time

import pytest

from llf_core.launch.local_process import computing_environment, trainer_command
from llf_core.runs import Checkpoints, RunReader, read_status, status
from llf_core.runs.disk_errors import is_disk_error
from llf_core.training.metrics_callback import MetricsCallback
from llf_core.training.session import run_attempt
from tests.faults.test_bad_input import check_sentence
from tests.odd_files import run_without_room


def after_step(monkeypatch, step, act):
    """Calls `act` once, when step `step` has been made and its checkpoint is not due."""
    original = MetricsCallback.on_step_end

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == step:
            act()
        original(self, args, state, control, **kwargs)

    monkeypatch.setattr(MetricsCallback, "on_step_end", on_step_end)


def check_failed_then_resume(folder):
    """The first checkpoint (step 2) survived the second (step 4), and training goes on from it."""
    final = read_status(folder)
    assert final.state == "failed"
    assert "the file size limit of 30.0 kB (`ulimit -f`)" in final.reason
    assert "checkpoint-2 is complete: resume continues from it." in final.reason
    assert Checkpoints(folder).list() == [2]
    assert len(RunReader(folder).metrics().values("loss")) >= 3


@pytest.fixture
def limit():
    """Sets RLIMIT_FSIZE of this process to a number of bytes, and takes it back."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_limit_on_file_sizes(make_run, monkeypatch, limit):
    folder = make_run()
    with monkeypatch.context() as patch:
        after_step(patch, 3, lambda: limit(30_000))
        assert run_attempt(folder, 1) == 1
    limit(resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    check_failed_then_resume(folder)
    status.begin_attempt(folder, 2)
    assert run_attempt(folder, 2) == 0
    assert read_status(folder).state == "finished"


@pytest.fixture
def small_disk(tmp_path, monkeypatch):
    """`LLF_HOME` on a tmpfs of 6 MB."""
    home = tmp_path / "small"
    home.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "llf-test", home], check=True)
    monkeypatch.setenv("LLF_HOME", str(home))
    yield home
    subprocess.run(["umount", "-l", home], check=True)


root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root; the limit above is the same fault")


def fill(disk, leaves):
    """Takes all of a disk but so many bytes."""
    with (disk / "filler").open("ab") as filler:
        while (free := shutil.disk_usage(disk).free - leaves) > 0:
            filler.write(bytes(min(free, 2**20)))
            filler.flush()


def losses(folder):
    columns = RunReader(folder).metrics()
    return dict(zip(columns.steps("loss").tolist(), map(float.hex, columns.values("loss")), strict=True))


def check_named(folder, disk):
    """The reason names the disk, the bytes that are missing and what to do."""
    final = read_status(folder)
    assert final.state == "failed"
    assert f"The disk is full: {disk} has " in final.reason
    assert re.search(r"The run needs about [\d.,]+ (kB|MB) more to continue\.", final.reason)
    assert final.reason.endswith("(`llf runs clean` removes deleted runs for good), then resume.")
    check_sentence(final.reason)


@root
@pytest.mark.parametrize("limit", ["quick", pytest.param("every", marks=pytest.mark.long)])
def test_a_disk_that_is_full_at_each_write(make_run, monkeypatch, small_disk, limit):
    """The third step leaves room for fewer and fewer pages, so that another write meets the end each time."""
    whole = make_run()
    before = shutil.disk_usage(small_disk).free
    assert run_attempt(whole, 1) == 0
    expected = losses(whole)
    page, used = 4096, before - shutil.disk_usage(small_disk).free
    rooms = range(0, used, 4 * page if limit == "every" else used // 3 // page * page)
    shutil.rmtree(whole.path)
    met = set()
    for room in rooms:
        folder = make_run()
        with monkeypatch.context() as patch:
            after_step(patch, 3, lambda room=room: fill(small_disk, room))
            code = run_attempt(folder, 1)
        if code == 0:
            (small_disk / "filler").unlink()
            shutil.rmtree(folder.path)
            continue
        (error,) = [event for event in RunReader(folder).events() if event["type"] == "error"]
        met.add(error["message"])
        check_named(folder, small_disk)
        saved = Checkpoints(folder).list()
        assert saved
        assert saved[0] == 2
        (small_disk / "filler").unlink()
        status.begin_attempt(folder, 2)
        assert run_attempt(folder, 2) == 0, read_status(folder).reason
        assert losses(folder) == expected
        assert sorted(one.name for one in folder.output.iterdir())
        shutil.rmtree(folder.path)
    print(len(rooms), "rooms,", len(met), "failures of their own")
    assert met


@root
def test_a_disk_that_is_full_from_the_start(make_run, small_disk):
    """Nothing has been written but the run's folder: the first word of the trainer finds no room."""
    folder = make_run()
    fill(small_disk, 0)
    process = start(folder)
    assert process.wait(200) == 1
    check_named(folder, small_disk)
    with pytest.raises(
        OSError, match=r"Runs cannot start. The disk is full: .* has [\d.]+ kB free of 6\.29 MB. A run needs about"
    ):
        make_run()


@pytest.mark.long
@root
def test_a_trainer_whose_log_is_full_says_its_last_word(make_run, small_disk):
    """The trace finds no room in `log.txt`, which ends neither the process nor its sentence."""
    folder = make_run(max_steps=4000, save_steps=2, logging_steps=1)
    process = start(folder)
    until = time.monotonic() + 120
    while Checkpoints(folder).latest() is None:
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    fill(small_disk, 0)
    assert process.wait(200) == 1
    check_named(folder, small_disk)


def start(folder):
    """The trainer as the supervisor starts it, with its output in the run's log."""
    with folder.log.open("ab") as log:
        return subprocess.Popen(
            [*trainer_command(folder)], stdout=log, stderr=log, env=computing_environment(os.environ, 1)
        )


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (RuntimeError("basic_ios::clear: iostream error"), True),
        (RuntimeError("[enforce fail at inline_container.cc:783] . unexpected pos 1216 vs 1106"), True),
        (RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"), True),
        (ValueError("Error while serializing: I/O error: No space left on device (os error 28)"), True),
        (OSError(errno.EACCES, "Permission denied", "/x/y"), False),
        (RuntimeError("unexpected position of the attention mask"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_what_libraries_say_of_a_full_disk(error, full):
    assert is_disk_error(error) is full
    other = TypeError("what came of it")
    other.__cause__ = error
    assert is_disk_error(other) is full


def test_a_line_that_finds_no_room_in_the_log_ends_no_process(tmp_path):
    code = (
        "from llf_core.runs.process_log import tolerate_a_full_log as t; t(); print('x' * 10**6); raise SystemExit(3)"
    )
    assert run_without_room([sys.executable, "-c", code], tmp_path / "log").returncode == 3
