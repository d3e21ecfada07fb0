"""A home that several users share, and texts that turn what stands beside them."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from llf_core.launch import Run
from llf_core.runs import (
    Checkpoints,
    RunReader,
    RunWriter,
    clean,
    create_run,
    folder_bytes,
    home,
    kill_run,
    list_runs,
    status,
    update_meta,
)
from llf_core.runs.process import ProcessId, boot_id, host
from tests.processes import open_descriptors

ROOT = Path(__file__).parents[3]
OTHER = 12345
LOCKS = """
import os, sys
os.environ["LLF_HOME"] = sys.argv[1]
from llf_core.runs.files import locked
from llf_core.runs.files import lock_path, shared_lock
os.umask(0o077)
if int(sys.argv[2]):
    os.setuid(int(sys.argv[2]))
with shared_lock(sys.argv[3], "waiting"):
    with locked(lock_path(__import__("pathlib").Path(sys.argv[1]), "queue")):
        print("held")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is another user")
def test_two_users_take_the_same_locks():
    shared = Path(tempfile.mkdtemp(prefix="llf-shared-"))
    try:
        shared.chmod(0o777)
        for user, name in ((0, "models"), (OTHER, "models"), (OTHER, "theirs"), (0, "theirs")):
            done = subprocess.run(
                [sys.executable, "-c", LOCKS, shared, str(user), name],
                capture_output=True, text=True, timeout=200, check=False, cwd=ROOT,
            )  # fmt: skip
            if "PermissionError" in done.stderr and "site-packages" in done.stderr:
                pytest.skip("another user cannot read this environment")
            assert done.stdout.strip() == "held", done.stderr[-1500:]
    finally:
        shutil.rmtree(shared)


def test_resume_and_branch_leave_no_descriptor_open(folder, monkeypatch):
    monkeypatch.setattr("llf_core.launch.launchers.launcher.start_supervisor", lambda *_: None)
    monkeypatch.setattr("llf_core.launch.resume.check_stored", lambda *_: None)
    monkeypatch.setattr("llf_core.launch.resume.check_run", lambda *_, **__: None)
    own = Checkpoints(folder)
    own.path(3).mkdir(parents=True)
    (own.path(3) / "trainer_state.json").write_text('{"max_steps": 9}')
    own.finish(3)
    Run(folder)

    before = open_descriptors()
    kept = []
    for _ in range(3):
        status.update(folder, state="stopped")
        kept.append(Run(folder).resume(trust=True))
        kept.append(Run(folder).branch(3, trust=True))
    assert open_descriptors() - before == set()


def test_clean_touches_nothing_behind_a_link(folder, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "checkpoint-3").mkdir(parents=True)
    for place in (elsewhere, elsewhere / "checkpoint-3"):
        (place / "complete.json").write_text('{"format": 1, "step": 3, "files": {"w": 1}}')
        (place / "w").write_text("x")
    status.update(folder, state="finished")
    folder.output.mkdir()
    folder.checkpoints.mkdir()
    (folder.checkpoints / "checkpoint-3").symlink_to(elsewhere / "checkpoint-3")
    (home() / "bin").mkdir()
    (home() / "bin" / "linked").symlink_to(elsewhere)
    (home() / "runs" / "linked").symlink_to(elsewhere)
    assert [item.name for item in clean(checkpoints=True).items] == ["linked"]
    assert sorted(path.name for path in elsewhere.rglob("*")) == ["checkpoint-3"] + 2 * ["complete.json"] + 2 * ["w"]
    assert not (home() / "bin" / "linked").is_symlink()
    Checkpoints(folder).prune(keep=1)
    assert (elsewhere / "checkpoint-3" / "w").exists()
    with pytest.raises(OSError, match=r"checkpoints/checkpoint-3 is a link\. Expected a folder"):
        Checkpoints(folder).check()


def test_a_folder_that_one_may_not_enter_has_no_bytes(folder, monkeypatch):
    def refused(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refused)
    assert folder_bytes(folder.path) == 0


def test_signs_that_turn_a_text_are_not_shown(folder):
    update_meta(folder, name="\u202eevil", tags=["\u2066a"], note="b\u202d")
    folder.config.write_text("model_name_or_path: a\u202eb\n", encoding="utf-8")
    RunWriter(folder).event("warning", message="x\u202ey")
    (row,) = list_runs().rows
    assert (row.name, row.tags, row.note, row.model) == ("evil", ("a",), "b", "ab")
    assert RunReader(folder).events()[-1]["message"] == "xy"
    update_meta(folder, name="שלום")
    assert list_runs().rows[0].name == "שלום"


def test_a_kill_leaves_a_process_alone_that_the_status_only_claims(llf_home):
    folder = create_run("stage: sft\n", "claims")
    with subprocess.Popen([sys.executable, "-c", "input()", "runs"], stdin=subprocess.PIPE) as other:
        try:
            process = ProcessId.of(other.pid)
            here = {"host": host(), "boot_id": boot_id(), "heartbeat": time.time()}
            status.update(folder, state="running", **here, **process.json(), supervisor=process.json())
            with pytest.raises(RuntimeError, match="does not belong to this run"):
                kill_run(folder)
            assert other.poll() is None
        finally:
            other.kill()
