"""`checkpoints/checkpoint-N/`: complete only with `complete.json`, written last, which lists all its files.

Links are never followed: a checkpoint behind a link does not count, and nothing behind one is modified.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from llf_core.runs.files import json_bytes, replace_file, sync_file, sync_folder
from llf_core.runs.jsonl import reach
from llf_core.untrusted import (
    SYSTEM_ERRORS,
    UnreadableError,
    is_folder,
    leads_to_file,
    list_folder,
    read_object_or_empty,
)

if TYPE_CHECKING:
    from pathlib import Path

    from llf_core.runs.folder import RunFolder

NAME = re.compile(r"checkpoint-(0|[1-9][0-9]*)")
COMPLETE = "complete.json"
Steps = list[int]  # an alias, since the class has a method `list`


class Checkpoints:
    """The checkpoints of a run."""

    def __init__(self, folder: RunFolder) -> None:
        self._root, self._run = folder.checkpoints, folder.path

    def path(self, step: int) -> Path:
        """Path of the checkpoint of a step, by transformers' name, whether it exists or not."""
        return self._root / f"checkpoint-{step}"

    def flush(self, step: int) -> None:
        """Flush the files of a checkpoint to disk, so that `finish` takes less time."""
        path = self.path(step)
        for name in _files(path):
            sync_file(path / name)

    def finish(self, step: int) -> int:
        """Mark a checkpoint as complete: flush every file, then write and flush `complete.json`; returns bytes of data.

        In this order a power failure leaves no checkpoint that counts and lacks data.
        """
        path = self.path(step)
        list_folder(path, self._run)  # nothing is written through a link
        files = {name: size for name, size in _files(path).items() if name != COMPLETE}
        for name in files:
            sync_file(path / name)
        for inner in {(path / name).parent for name in files}:
            sync_folder(inner)
        reach("checkpoint.flushed")
        listed = {_listed(name): size for name, size in files.items()}
        replace_file(path / COMPLETE, json_bytes({"format": 1, "step": step, "files": listed}), sync=True)
        sync_folder(self._root)
        return sum(files.values())

    def complete(self, step: int) -> bool:
        """Whether every file listed in `complete.json` exists with its recorded size."""
        path = self.path(step)
        facts = read_object_or_empty(path / COMPLETE, root=self._run)
        files = facts.get("files")
        if not isinstance(files, dict) or facts.get("format") != 1 or facts.get("step") != step or not files:
            return False
        try:
            there = {_listed(name): size for name, size in _files(path).items()}
        except OSError as error:
            if error.errno in SYSTEM_ERRORS:  # `prune` would remove it
                raise
            return False  # of a disk that fails: what cannot be examined cannot be resumed from either
        return all(there.get(name) == size for name, size in files.items())

    def check(self) -> None:
        """Refuse links in place of checkpoint folders: a run that ignored them would lose what they point to."""
        with suppress(FileNotFoundError):
            for name in sorted(filter(NAME.fullmatch, list_folder(self._root, self._run))):
                list_folder(self._root / name, self._run)

    def list(self) -> Steps:
        """Steps of the complete checkpoints, in ascending order; empty if the folder cannot be read."""
        return [step for step in self._steps() if self.complete(step)]

    def latest(self) -> Path | None:
        """The newest complete checkpoint."""
        for step in reversed(self._steps()):
            if self.complete(step):
                return self.path(step)
        return None

    def prune(self, keep: int | None = 2, best: int | None = None) -> Steps:
        """Remove all but the newest `keep` checkpoints (at least one; None for all) and that of step `best`.

        Incomplete ones older than the newest complete one are removed too. Returns the removed complete steps.
        """
        complete = self.list()
        if not complete:
            return []
        kept = set(complete) if keep is None else set(complete[-max(keep, 1) :])
        if best is not None:
            kept.add(best)
        for step in self._steps():
            if step not in kept and step <= complete[-1]:
                self.remove(step)
        return [step for step in complete if step not in kept]

    def remove_unfinished(self) -> None:
        """Remove checkpoints without `complete.json`, left by an interrupted process."""
        for step in self._steps():
            if not (self.path(step) / COMPLETE).exists():
                shutil.rmtree(self.path(step))

    def remove(self, step: int) -> None:
        """Remove a checkpoint. `complete.json` is removed first, so that a partial checkpoint never counts."""
        path = self.path(step)
        list_folder(path, self._run)  # nothing is removed through a link
        (path / COMPLETE).unlink(missing_ok=True)
        reach("checkpoint.uncounted")
        shutil.rmtree(path)
        reach("checkpoint.removed")

    def _steps(self) -> Steps:
        try:
            names = list_folder(self._root, self._run)
        except (FileNotFoundError, UnreadableError):
            return []
        steps = sorted(int(match[1]) for match in map(NAME.fullmatch, names) if match)
        return [step for step in steps if is_folder(self.path(step), self._run)]


def recoverable_message(folder: RunFolder) -> str:
    """Describe what can be used of an ended run, as the last sentence of its reason."""
    if leads_to_file(folder.trained):
        return "The result is complete: resume makes the remaining predictions."
    latest = Checkpoints(folder).latest()
    if latest is None:
        return "There is no checkpoint yet: resume starts over."
    return f"{latest.name} is complete: resume continues from it."


def has_weights(folder: RunFolder) -> bool:
    """Whether a run has a result or a complete checkpoint."""
    return is_folder(folder.output) or Checkpoints(folder).latest() is not None


def _listed(name: str) -> str:
    """Name of a file in `complete.json`: in UTF-8 with escapes, as in the zip of a run."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _files(path: Path) -> dict[str, int]:
    """Size in bytes of each file below a folder, by relative path; vanished files are skipped."""

    def raise_it(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    sizes: dict[str, int] = {}
    for place, _, names in os.walk(path, onerror=raise_it):
        for name in names:
            file = path.joinpath(place, name)
            try:
                facts = file.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISREG(facts.st_mode) and not name.startswith(f".{COMPLETE}"):
                sizes[str(file.relative_to(path))] = facts.st_size
    return dict(sorted(sizes.items()))
