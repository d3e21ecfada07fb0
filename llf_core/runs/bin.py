"""Deleting moves a run to the bin; only `clean` and `remove_from_bin` remove anything for good."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.door import UnreadableError, is_folder
from llf_core.runs.checkpoints import Checkpoints
from llf_core.runs.files import locked, special_file
from llf_core.runs.folder import RUN_ID, RunFolder, check_run_id, home, open_run, run_ids
from llf_core.runs.listing import Row, read_row
from llf_core.runs.moving import move
from llf_core.runs.status import BrokenRunError, read_status, shown
from llf_core.runs.uploads import unused_uploads

if TYPE_CHECKING:
    from collections.abc import Iterator

DAY = 86400.0


@dataclass(frozen=True)
class Freed:
    """What cleaning removes.

    Attributes:
        items: folders, and files of `uploads`; of each kind the oldest first.
        bytes: what they take on the disk.
    """

    items: tuple[Path, ...]
    bytes: int


@dataclass(frozen=True)
class Binned:
    """A run in the bin.

    Attributes:
        row: as it was listed.
        deleted: when it was deleted, in Unix seconds.
        bytes: what it takes on the disk.
    """

    row: Row
    deleted: float
    bytes: int

    def json(self) -> dict[str, Any]:
        """As a JSON object: the row with `deleted` and `bytes`."""
        return self.row.json() | {"deleted": self.deleted, "bytes": self.bytes}


def _root(given: Path | str | None) -> Path:
    return home() if given is None else Path(given)


@contextmanager
def _held(given: Path | str | None) -> Iterator[Path]:
    """The bin, held while something is moved into it or out of it: two views may ask for the same run."""
    path = _root(given) / "bin"
    path.mkdir(parents=True, exist_ok=True)
    with locked(path / ".lock"):
        yield path


def delete_run(run_id: str, home: Path | str | None = None) -> Path:
    """Moves a run that has ended to `$LLF_HOME/bin`.

    Returns:
        Where it is now.

    Raises:
        ValueError: `run_id` is no id.
        FileNotFoundError: there is no such run.
        RuntimeError: it is still going.
        OSError: it cannot be moved; it is where it was.
    """
    with _held(home) as bin_folder:
        folder = open_run(run_id, home)
        with _resting(folder):
            _check_ended(folder)
            target = bin_folder / run_id
            if os.path.lexists(target):  # a run restored by copying: the older one in the bin makes way
                _aside(target)
            os.utime(folder.path)  # the bin counts days from now
            move(folder.path, target)
    return target


@contextmanager
def _resting(folder: RunFolder) -> Iterator[None]:
    """Keeps the next attempt of a run from beginning meanwhile, where its lock is one."""
    with ExitStack() as stack:
        with suppress(UnreadableError):
            stack.enter_context(locked(folder.status_lock))
        yield


def _check_ended(folder: RunFolder) -> None:
    """Refuses a run that goes.

    Raises:
        RuntimeError: it does.
    """
    try:
        state = "lost" if special_file(folder.path) else shown(read_status(folder)).state
    except BrokenRunError:
        return
    if state not in {"finished", "stopped", "failed", "lost"}:
        raise RuntimeError(f"{folder.id} is {state}. Stop or kill it before it is deleted.")


def restore_run(run_id: str, home: Path | str | None = None) -> RunFolder:
    """Brings a run back from the bin.

    Raises:
        ValueError: `run_id` is no id.
        FileNotFoundError: the bin does not hold it.
        FileExistsError: a run of this id is there already.
        OSError: it cannot be moved; it is where it was.
    """
    with _held(home) as bin_folder:
        source = _in_bin(bin_folder, run_id)
        target = _root(home) / "runs" / run_id
        if os.path.lexists(target):
            raise FileExistsError(f"There is a run {run_id} already. Rename or delete that one first.")
        target.parent.mkdir(parents=True, exist_ok=True)
        move(source, target)
    return RunFolder(target)


def remove_from_bin(run_id: str, home: Path | str | None = None) -> None:
    """Removes a run from the bin for good.

    Raises:
        ValueError: `run_id` is no id.
        FileNotFoundError: the bin does not hold it.
    """
    with _held(home) as bin_folder:
        aside = _aside(_in_bin(bin_folder, run_id))
    shutil.rmtree(aside, onerror=_unless_gone)


def binned(home: Path | str | None = None, offset: int = 0, limit: int = 50) -> tuple[int, list[Binned]]:
    """What is in the bin.

    Args:
        home: `LLF_HOME` where it is not the environment's.
        offset: leaves out so many.
        limit: at most so many.

    Returns:
        How many runs there are in all, and some of them, last deleted first.
    """
    found = []
    with suppress(FileNotFoundError), os.scandir(_root(home) / "bin") as entries:
        for entry in entries:
            with suppress(OSError):  # just restored, or unreadable
                if RUN_ID.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                    found.append((entry.stat().st_mtime, entry.path))
    found.sort(reverse=True)
    shown = [(deleted, Path(path)) for deleted, path in found[offset : offset + limit]]
    return len(found), [
        Binned(read_row(RunFolder(path), curve=False), deleted, folder_bytes(path)) for deleted, path in shown
    ]


def _in_bin(bin_folder: Path, run_id: str) -> Path:
    path = bin_folder / check_run_id(run_id)
    if not is_folder(path):
        raise FileNotFoundError(f"The bin holds no run {run_id}.")
    return path


def folder_bytes(path: Path) -> int:
    """Bytes of all files below a folder; links are not followed, and what cannot be read counts nothing."""
    total = 0
    waiting = [str(path)] if is_folder(path) else []
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_size
        except OSError:
            continue
    return total


def cleanable(
    home: Path | str | None = None, *, days: float = 0, checkpoints: bool = False, keep_latest: bool = False
) -> Freed:
    """What `clean` would remove, and how much room that makes.

    Args:
        home: `LLF_HOME` where it is not the environment's.
        days: only what has been in the bin for at least so many days.
        checkpoints: also the checkpoints of finished runs, whose result is in `output/`.
        keep_latest: of those, all but the newest.
    """
    items = _old_in_bin(_root(home) / "bin", days) + _half_made(_root(home) / "runs") + unused_uploads(_root(home))
    if checkpoints:
        items += _of_finished_runs(_root(home) / "runs", keep_latest=keep_latest)
    return Freed(tuple(items), sum(map(_bytes, items)))


def clean(
    home: Path | str | None = None, *, days: float = 0, checkpoints: bool = False, keep_latest: bool = False
) -> Freed:
    """Removes for good what `cleanable` names.

    Returns:
        What was removed.
    """
    with _held(home) as bin_folder:
        freed = cleanable(home, days=days, checkpoints=checkpoints, keep_latest=keep_latest)
        items = [_aside(item) if item.parent == bin_folder else item for item in freed.items]
    for item in items:
        if not is_folder(item):  # a link: what it leads to is not ours
            item.unlink(missing_ok=True)
            continue
        # `complete.json` goes first: no half of a checkpoint ever counts.
        (item / "complete.json").unlink(missing_ok=True)
        shutil.rmtree(item, onerror=_unless_gone)
    return freed


def _unless_gone(_: object, __: str, failure: tuple[type[BaseException], BaseException, Any]) -> None:
    """Passes over what another process removes at the same time."""
    if not isinstance(failure[1], FileNotFoundError):
        raise failure[1]


def _bytes(item: Path) -> int:
    return item.stat().st_size if item.is_file() else folder_bytes(item)


def _aside(item: Path) -> Path:
    """Renames what is to be removed from the bin: nobody can restore a half of it."""
    return item.rename(item.with_name(f".{item.name.lstrip('.')[:100]}.{time.time_ns():x}"))


def _old_in_bin(bin_folder: Path, days: float) -> list[Path]:
    if not bin_folder.is_dir():
        return []
    before = time.time() - days * DAY
    entries = (entry for entry in bin_folder.iterdir() if is_folder(entry) or entry.is_symlink())
    found = [(entry.lstat().st_mtime, entry) for entry in entries]
    return [entry for deleted, entry in sorted(found) if deleted <= before]


def _half_made(runs: Path) -> list[Path]:
    """Run folders that a process was killed in the middle of making, a day ago or longer."""
    if not runs.is_dir():
        return []
    before = time.time() - DAY
    return [entry for entry in sorted(runs.glob(".new-*")) if entry.lstat().st_mtime < before]


def _of_finished_runs(runs: Path, *, keep_latest: bool) -> list[Path]:
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
