"""Temporary folders of views, and what is left of a kernel that is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from llf_widgets.temporary_folder import LOCK, MIN_AGE, TemporaryFolder

OWNER = """
import sys
from llf_widgets.temporary_folder import TemporaryFolder
folder = TemporaryFolder("inspect")
print(folder.name, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def age(folder: Path) -> None:
    """Makes a folder old enough to be removed."""
    then = (folder / LOCK).stat().st_mtime - 2 * MIN_AGE
    os.utime(folder / LOCK, (then, then))


def test_the_folder_of_a_killed_process_is_removed_by_the_next(tmp: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp)},
    )
    assert process.stdout is not None
    left = Path(process.stdout.readline().strip())
    assert left.parent == tmp
    age(left)
    with TemporaryFolder("inspect"):
        assert left.is_dir()  # its owner lives
    process.kill()
    process.communicate()
    with TemporaryFolder("rows") as own:
        assert not left.exists()
        assert Path(own).is_dir()
    assert list(tmp.iterdir()) == []


def test_new_and_foreign_folders_stay(tmp: Path) -> None:
    new, other, target = tmp / "llf-inspect-new", tmp / "llf-demo-x", tmp / "target"
    for folder in (new, other, target):
        folder.mkdir()
    (new / LOCK).touch()  # about to be locked by another process
    (target / LOCK).touch()
    age(target)
    (tmp / "llf-inspect-link").symlink_to(target)
    TemporaryFolder("inspect").cleanup()
    assert sorted(path.name for path in tmp.iterdir()) == [
        "llf-demo-x",
        "llf-inspect-link",
        "llf-inspect-new",
        "target",
    ]
