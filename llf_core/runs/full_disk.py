"""A full disk, in words: which one it is, how many bytes are missing, and what to do."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.runs.checkpoints import Checkpoints
from llf_core.runs.formatting import size
from llf_core.runs.reached import what_is_safe
from llf_core.runs.reader import RunReader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llf_core.runs.folder import RunFolder

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
SIGNS = (
    "No space left on device", "File too large", "Disk quota exceeded",
    "file write failed", "failed writing file", "unexpected pos", "iostream error",  # torch.save
    "os error 28", "os error 27", "os error 122",  # libraries in Rust: safetensors, tokenizers
)  # fmt: skip
"""What libraries say that lose the number of the error."""
FULL_BELOW = 2**18
"""Bytes free at which a disk counts as full where nothing but its free space tells."""
LOGS = 2**20
"""Bytes that a run writes beside a checkpoint, at least."""
BYTES_OF_A_PARAMETER = 12
"""Of a trained one in a checkpoint: itself, and the two numbers that Adam keeps of it."""


def is_full_disk(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, says that a disk is full or a limit on file sizes was met."""
    return any(_says_so(one) for one in _chain(error))


def looks_full(folder: RunFolder) -> bool:
    """Whether there is no room for anything on the disk of a run: for a process that left no word of its own."""
    try:
        return shutil.disk_usage(folder.path).free < FULL_BELOW
    except OSError:
        return False


def make_room(folder: RunFolder) -> None:
    """Removes what was only half written and counts for nothing: a checkpoint without its last file, a result."""
    with suppress(OSError):
        Checkpoints(folder).remove_unfinished()
    shutil.rmtree(folder.path / ".output", ignore_errors=True)


def told(folder: RunFolder, error: BaseException | None = None) -> tuple[str, str]:
    """What happened and what to do, in sentences for a person.

    Args:
        folder: the run. What it had written in part should be removed by now, see `make_room`.
        error: what said so; None where only the disk's free space tells.
    """
    safe = what_is_safe(folder)
    limit = _file_limit(folder, error)
    if limit is not None:
        return (
            f"A file met the limit on file sizes, which is {_bytes(limit)} (`ulimit -f`). {safe}",
            "Raise the limit where the run is started, then resume.",
        )
    place = _place(folder, error)
    usage = shutil.disk_usage(place)
    quota = _number(error) == errno.EDQUOT
    free = 0 if quota else usage.free
    missing = _needed(folder) - free
    if missing <= 0:
        return f"The disk at {_mount(place)} was full. It has {_bytes(free)} free by now. {safe}", "Resume."
    what = f"Your quota of the disk at {_mount(place)} is used up"
    if not quota:
        what = f"The disk is full: {_mount(place)} has {_bytes(free)} free of {_bytes(usage.total)}"
    return (
        f"{what}. The run needs about {_bytes(missing)} more to go on. {safe}",
        "Free that much (`llf runs clean` removes deleted runs and caches), then resume.",
    )


def no_room(place: Path, error: BaseException) -> str:
    """Why no run can begin, in sentences for a person.

    Args:
        place: the folder of runs.
        error: what said so.
    """
    usage = shutil.disk_usage(place)
    if _number(error) != errno.ENOSPC:
        return f"No run can begin in {place}: {os.strerror(_number(error) or errno.ENOSPC)}."
    missing = _bytes(max(LOGS - usage.free, 0) or LOGS)
    return (
        f"No run can begin: {_mount(place)} has {_bytes(usage.free)} free of {_bytes(usage.total)}, and a run needs at "
        f"least {missing} more. Free that much (`llf runs clean` removes deleted runs and caches), then start it again."
    )


def _says_so(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in FULL
    return any(sign in str(error) for sign in SIGNS)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that it came from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _number(error: BaseException | None) -> int | None:
    """The system's number of the error that says so; None where a library lost it."""
    for one in _chain(error):
        if isinstance(one, OSError) and one.errno in FULL:
            return one.errno
        for number in FULL:
            if f"os error {number}" in str(one) or os.strerror(number) in str(one):
                return number
    return None


def _file_limit(folder: RunFolder, error: BaseException | None) -> int | None:
    """The limit on file sizes in bytes, where one was met."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    number = _number(error)
    unsure = number is None and not looks_full(folder)
    return limit if limit != resource.RLIM_INFINITY and (number == errno.EFBIG or unsure) else None


def _place(folder: RunFolder, error: BaseException | None) -> Path:
    """A folder on the disk that is full: the error's own, else the fullest of those that a run writes to."""
    for one in _chain(error):
        if isinstance(one, OSError) and one.errno in FULL and isinstance(one.filename, str):
            return next((path for path in Path(one.filename).absolute().parents if path.is_dir()), folder.path)
    cache = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    places = [place for place in (folder.path, Path(tempfile.gettempdir()), cache) if place.is_dir()]
    return min(places, key=lambda place: shutil.disk_usage(place).free)


def _mount(place: Path) -> Path:
    """Where a folder's disk is mounted."""
    place = place.resolve()
    return next((path for path in (place, *place.parents) if path.is_mount()), place)


def _needed(folder: RunFolder) -> int:
    """About how many bytes a run writes until its next checkpoint is whole."""
    latest = Checkpoints(folder).latest()
    if latest is not None:
        return LOGS + sum(file.stat().st_size for file in latest.rglob("*") if file.is_file())
    try:
        events = RunReader(folder).events()
    except OSError:
        events = []
    trained = next((event["trainable"] for event in events if event["type"] == "model" and "trainable" in event), 0)
    return LOGS + BYTES_OF_A_PARAMETER * int(trained)


def _bytes(amount: float) -> str:
    return " ".join(size(amount))
