"""Deleted runs: `delete_run` moves a run to the bin; only `clean` and `remove_from_bin` remove files permanently."""

from __future__ import annotations

import errno
import os
import shutil
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.runs.archive import move
from llf_core.runs.checkpoints import Checkpoints
from llf_core.runs.files import locked, special_file
from llf_core.runs.folder import RUN_ID, RunFolder, check_run_id, home_folder, open_run, run_ids
from llf_core.runs.listing import Row, read_row, shown_status
from llf_core.runs.status import BrokenRunError, read_status
from llf_core.runs.uploads import unused_uploads
from llf_core.untrusted import UnreadableError, is_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

DAY = 86400.0


@dataclass(frozen=True)
class RemovedItems:
    """Files and folders that `clean` removes, and their total size."""

    items: tuple[Path, ...]
    bytes: int


@dataclass(frozen=True)
class DeletedRun:
    """A run in the bin, the time of its deletion in Unix seconds, and its total size."""

    row: Row
    deleted: float
    bytes: int

    def json(self) -> dict[str, Any]:
        """The row as a JSON object, with `deleted` and `bytes`."""
        return self.row.json() | {"deleted": self.deleted, "bytes": self.bytes}


@contextmanager
def _bin_lock(given: Path | str | None) -> Iterator[Path]:
    """Hold the lock of the bin while a run is moved into or out of it: two views may request the same move."""
    path = home_folder(given) / "bin"
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:  # which would read as a run that exists
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from None
    with locked(path / ".lock"):
        yield path


def delete_run(run_id: str, home: Path | str | None = None) -> Path:
    """Move an ended run to `$LLF_HOME/bin`, from where it can be restored until the bin is emptied.

    A run whose status cannot be read, or that holds a pipe, socket or device, counts as ended. An older run with this
    id in the bin can no longer be restored; `clean` removes it.
    """
    with _bin_lock(home) as bin_folder:
        folder = open_run(run_id, home)
        with _attempt_lock(folder):
            _check_ended(folder)
            target = bin_folder / run_id
            # A restored copy was deleted again: it replaces the older one in the bin.
            older = _rename_before_removal(target) if os.path.lexists(target) else None
            try:
                os.utime(folder.path)  # age in the bin is counted from now
                move(folder.path, target)
            except BaseException:
                if older is not None:
                    older.rename(target)
                raise
    return target


@contextmanager
def _attempt_lock(folder: RunFolder) -> Iterator[None]:
    with ExitStack() as stack:
        with suppress(UnreadableError):
            stack.enter_context(locked(folder.status_lock))
        yield


def _check_ended(folder: RunFolder) -> None:
    try:
        state = "lost" if special_file(folder.path) else shown_status(folder).state
    except BrokenRunError:
        return
    if state not in {"finished", "stopped", "failed", "lost"}:
        raise RuntimeError(f"{folder.id} is {state}. Stop or kill it before you delete it.")


def restore_run(run_id: str, home: Path | str | None = None) -> RunFolder:
    """Move a run from the bin back to `$LLF_HOME/runs`, unchanged.

    Raises:
        FileExistsError: a run with this id exists in `runs`.
    """
    with _bin_lock(home) as bin_folder:
        source = _in_bin(bin_folder, run_id)
        target = home_folder(home) / "runs" / run_id
        if os.path.lexists(target):
            raise FileExistsError(
                f"A run {run_id} already exists. Move its folder elsewhere: deleting it replaces this one."
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        move(source, target)
    return RunFolder(target)


def remove_from_bin(run_id: str, home: Path | str | None = None) -> None:
    """Remove a run from the bin permanently."""
    with _bin_lock(home) as bin_folder:
        aside = _rename_before_removal(_in_bin(bin_folder, run_id))
    shutil.rmtree(aside, onerror=_ignore_missing)


def deleted_runs(home: Path | str | None = None, offset: int = 0, limit: int = 50) -> tuple[int, list[DeletedRun]]:
    """One page of the runs in the bin, last deleted first, after the total number of runs there."""
    found = []
    with suppress(FileNotFoundError), os.scandir(home_folder(home) / "bin") as entries:
        for entry in entries:
            with suppress(OSError):  # restored meanwhile, or unreadable
                if RUN_ID.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                    found.append((entry.stat().st_mtime, entry.path))
    found.sort(reverse=True)
    shown = [(deleted, Path(path)) for deleted, path in found[offset : offset + limit]]
    return len(found), [
        DeletedRun(read_row(RunFolder(path), curve=False), deleted, folder_bytes(path)) for deleted, path in shown
    ]


def _in_bin(bin_folder: Path, run_id: str) -> Path:
    path = bin_folder / check_run_id(run_id)
    if not is_folder(path):
        raise FileNotFoundError(f"The bin does not contain run {run_id}.")
    return path


def folder_bytes(path: Path) -> int:
    """Sum of the sizes of the files below a folder in bytes; links and unreadable files count 0."""
    total = 0
    waiting = [str(path)] if is_folder(path) else []
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        with suppress(OSError):  # removed meanwhile
                            total += entry.stat(follow_symlinks=False).st_size
        except OSError:
            continue
    return total


def find_cleanable(
    home: Path | str | None = None, *, days: float = 0, checkpoints: bool = False, keep_latest: bool = False
) -> RemovedItems:
    """Find what `clean` would remove, and its size.

    These are the runs in the bin, folders of runs whose creation was interrupted at least a day ago, and uploaded files
    that are no longer used (`unused_uploads`).

    Args:
        days: only runs deleted at least this many days ago.
        checkpoints: also the complete checkpoints of finished runs whose result is in `output/`.
        keep_latest: except the newest checkpoint of each run.
    """
    items = _cleanable(home_folder(home), days, checkpoints=checkpoints, keep_latest=keep_latest)
    return RemovedItems(tuple(items), sum(map(_bytes, items)))


def clean(
    home: Path | str | None = None, *, days: float = 0, checkpoints: bool = False, keep_latest: bool = False
) -> RemovedItems:
    """Permanently remove what `find_cleanable` lists."""
    with _bin_lock(home) as bin_folder:
        found = _cleanable(bin_folder.parent, days, checkpoints=checkpoints, keep_latest=keep_latest)
        items = [_rename_before_removal(item) if item.parent == bin_folder else item for item in found]
    freed = RemovedItems(tuple(found), sum(map(_bytes, items)))  # a walk over all files, while others use the bin
    for item in items:
        if not is_folder(item):  # a link: its target is not removed
            item.unlink(missing_ok=True)
            continue
        # `complete.json` is removed first, so that a partial checkpoint never counts.
        (item / "complete.json").unlink(missing_ok=True)
        shutil.rmtree(item, onerror=_ignore_missing)
    return freed


def _ignore_missing(_: object, __: str, failure: tuple[type[BaseException], BaseException, object]) -> None:
    """Ignore files that another process removes at the same time."""
    if not isinstance(failure[1], FileNotFoundError):
        raise failure[1]


def _bytes(item: Path) -> int:
    return item.stat().st_size if item.is_file() and not item.is_symlink() else folder_bytes(item)


def _rename_before_removal(item: Path) -> Path:
    """Rename a run before it is removed, so that nobody restores half of it."""
    return item.rename(item.with_name(f".{item.name.lstrip('.')[:100]}.{time.time_ns():x}"))


def _cleanable(root: Path, days: float, *, checkpoints: bool, keep_latest: bool) -> list[Path]:
    items = _old_in_bin(root / "bin", days) + _unfinished_folders(root / "runs") + unused_uploads(root)
    return items + (_finished_checkpoints(root / "runs", keep_latest=keep_latest) if checkpoints else [])


def _old_in_bin(bin_folder: Path, days: float) -> list[Path]:
    if not bin_folder.is_dir():
        return []
    before = time.time() - days * DAY
    entries = (entry for entry in bin_folder.iterdir() if is_folder(entry) or entry.is_symlink())
    found = [(entry.lstat().st_mtime, entry) for entry in entries]
    return [entry for deleted, entry in sorted(found) if deleted <= before]


def _unfinished_folders(runs: Path) -> list[Path]:
    if not runs.is_dir():
        return []
    before = time.time() - DAY
    return [entry for entry in sorted(runs.glob(".new-*")) if entry.lstat().st_mtime < before]


def _finished_checkpoints(runs: Path, *, keep_latest: bool) -> list[Path]:
    found: list[Path] = []
    for name in run_ids(runs.parent):
        folder = RunFolder(runs / name)
        try:
            finished = read_status(folder).state == "finished"
        except BrokenRunError:
            continue
        if finished and is_folder(folder.output):
            checkpoints = Checkpoints(folder)
            steps = checkpoints.list()
            found += [checkpoints.path(step) for step in (steps[:-1] if keep_latest else steps)]
    return found
