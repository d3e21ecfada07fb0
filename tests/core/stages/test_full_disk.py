"""A disk that fills up, or a limit on file sizes, while the real trainer saves: the old checkpoint stays whole."""

import os
import resource
import shutil
import subprocess

import pytest

from llf_core.runs import Checkpoints, RunReader, read_status, status
from llf_core.stages.progress import RunProgress
from llf_core.stages.session import run_attempt


def after_step(monkeypatch, step, act):
    """Calls `act` once, when step `step` has been made and its checkpoint is not due."""
    original = RunProgress.on_step_end

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == step:
            act()
        original(self, args, state, control, **kwargs)

    monkeypatch.setattr(RunProgress, "on_step_end", on_step_end)


def check_failed_then_resume(folder):
    """The first checkpoint (step 2) survived the second (step 4), and training goes on from it."""
    final = read_status(folder)
    assert final.state == "failed"
    assert "disk is full" in final.reason or "limit on file sizes" in final.reason
    assert "resume" in final.reason
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


if os.geteuid() == 0:  # mounting needs root; the limit above is the same fault for anybody else

    def test_a_full_disk(make_run, monkeypatch, small_disk):
        folder = make_run()
        filler = small_disk / "filler"

        def fill():
            free = shutil.disk_usage(small_disk).free
            filler.write_bytes(bytes(free - 100_000))

        with monkeypatch.context() as patch:
            after_step(patch, 3, fill)
            assert run_attempt(folder, 1) == 1
        check_failed_then_resume(folder)
        filler.unlink()
        status.begin_attempt(folder, 2)
        assert run_attempt(folder, 2) == 0
        assert read_status(folder).state == "finished"
