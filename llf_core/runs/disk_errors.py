"""A disk that is full, read-only or failing, in words: which one it is, what is missing, and what to do."""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.runs.checkpoints import Checkpoints, what_is_safe
from llf_core.runs.event_fields import is_whole
from llf_core.runs.formatting import size
from llf_core.runs.jsonl import NEWS, records

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llf_core.runs.folder import RunFolder

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
FAILING = frozenset({errno.EIO, errno.ESTALE})
DISK = FULL | FAILING | {errno.EROFS}
SIGNS = ("file write failed", "failed writing file", "unexpected pos", "iostream error")
"""What torch.save says, which loses the number of the error."""
SYSTEM = re.compile(r"\bos error (\d+)\b")
"""How libraries in Rust (safetensors, tokenizers) write the number of the error."""
FULL_BELOW = 2**18
"""Bytes free at which a disk counts as full where nothing but its free space tells."""
LOGS = 2**20
"""Bytes that a run writes beside a checkpoint, at least."""
FILES = 32
"""Files that a run makes beside those that it has, at least."""
BYTES_OF_A_PARAMETER = 12
"""Of a trained one in a checkpoint: itself, and the two numbers that Adam keeps of it."""


def is_disk_error(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, says that a disk is full, read-only or failing."""
    return any(_number_of(one) is not None or _says_so(one) for one in _chain(error))


def takes_nothing(folder: RunFolder) -> bool:
    """Whether the disk of a run has no room or is read-only: for a process that left no word of its own."""
    try:
        facts = os.statvfs(folder.path)
    except OSError:
        return False
    full = facts.f_bavail * facts.f_frsize < FULL_BELOW
    return full or _is_read_only(facts) or _has_no_inodes(facts)


def make_room(folder: RunFolder) -> None:
    """Removes what was only half written and counts for nothing: a checkpoint without its last file, a result."""
    with suppress(OSError):
        Checkpoints(folder).remove_unfinished()
    shutil.rmtree(folder.path / ".output", ignore_errors=True)


def told(folder: RunFolder, error: BaseException | None = None) -> tuple[str, str]:
    """What happened and what to do, in sentences for a person.

    Args:
        folder: the run. What it had written in part should be removed by now, see `make_room`.
        error: what said so; None where only the disk itself tells.
    """
    safe = what_is_safe(folder)
    limit = _file_limit(folder, error)
    if limit is not None:
        return (
            f"A file met the limit on file sizes, which is {_bytes(limit)} (`ulimit -f`). {safe}",
            "Raise the limit where the run is started, then resume.",
        )
    number = _number(error)
    if number is None and not takes_nothing(folder):
        number = _probe(folder.path)  # a library lost it
    what, remedy = _what(_place(folder, error), number, _needed(folder), "The run", "to go on")
    return f"{what} {safe}", f"{remedy}, then resume." if remedy else "Resume."


def no_room(place: Path, error: BaseException) -> str:
    """Why no run can begin, in sentences for a person.

    Args:
        place: the folder of runs, or where it would be.
        error: what said so.
    """
    place = next(path for path in (place.absolute(), *place.absolute().parents) if path.is_dir())
    if (number := _number(error)) == errno.EFBIG:
        limit = _bytes(resource.getrlimit(resource.RLIMIT_FSIZE)[0])
        return f"No run can begin in {place}: the limit on file sizes is {limit} (`ulimit -f`). Raise it first."
    free = 0 if number == errno.EDQUOT else shutil.disk_usage(place).free
    what, remedy = _what(place, number, LOGS if free < LOGS else free + LOGS, "A run")
    return f"No run can begin. {what} {remedy}, then start it again." if remedy else f"No run can begin. {what}"


def disk_sentence(error: OSError, place: Path) -> str:
    """What a command that met a disk error says, in sentences for a person.

    Args:
        error: the error, see `is_disk_error`.
        place: a folder on the disk, where the error names none.
    """
    what, remedy = _what(_named(error) or place, _number(error), 0, "")
    return f"{what} {remedy}, then try again." if remedy else f"{what} Try again."


def _what(place: Path, number: int | None, needed: int, who: str, purpose: str = "") -> tuple[str, str]:
    """What is wrong with a disk, as a sentence, and what to do about it; empty where it takes files again.

    Args:
        place: a folder on it.
        number: the number of the error; None where it is not known.
        needed: bytes.
        who: needs them.
        purpose: for what.
    """
    mount, facts = _mount(place), os.statvfs(place)
    if number == errno.EROFS or (number is None and _is_read_only(facts)):
        what = f"The disk at {mount} is read-only: nothing can be written to it."
        return what, "Make it writable (a failing disk becomes read-only by itself: see `dmesg`)"
    if number in FAILING:
        what = f"The disk at {mount} failed: {os.strerror(number or 0)}."
        return what, "Check the disk, or the connection to the network drive (see `dmesg`)"
    if number in {None, errno.ENOSPC} and _has_no_inodes(facts):
        free_files = f"{facts.f_favail:,} of its {facts.f_files:,} inodes are free"
        what = f"The disk at {mount} has no room for more files: {free_files}, and a run makes about {FILES}."
        return what, "Remove files (`llf runs clean` removes deleted runs for good)"
    quota = number == errno.EDQUOT
    free = 0 if quota else facts.f_bavail * facts.f_frsize
    missing = needed - free
    if missing <= (0 if needed else -LOGS) and not quota:
        return f"The disk at {mount} was full. It has {_bytes(free)} free by now.", ""
    what = f"Your quota of the disk at {mount} is used up."
    if not quota:
        what = f"The disk is full: {mount} has {_bytes(free)} free of {_bytes(facts.f_blocks * facts.f_frsize)}."
    if needed:
        what = f"{what} {who} needs about {_bytes(missing)} more{purpose and ' '}{purpose}."
    return what, f"Free {'that much' if needed else 'space'} (`llf runs clean` removes deleted runs for good)"


def _says_so(error: BaseException) -> bool:
    return not (isinstance(error, OSError) and error.errno is not None) and any(sign in str(error) for sign in SIGNS)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that it came from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _number(error: BaseException | None) -> int | None:
    """The system's number of the error that says so; None where a library lost it."""
    return next((number for one in _chain(error) if (number := _number_of(one)) is not None), None)


def _number_of(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in DISK else None
    text = str(error)
    if match := SYSTEM.search(text):
        return int(match[1]) if int(match[1]) in DISK else None
    return next((number for number in DISK if os.strerror(number) in text), None)


def _probe(place: Path) -> int | None:
    """The number of the error that a small file meets in a folder; None where it meets none."""
    file = place / f".probe-{os.getpid()}"
    try:
        try:
            with file.open("xb") as probe:
                probe.write(bytes(4096))
                probe.flush()
                os.fsync(probe.fileno())
        finally:
            file.unlink(missing_ok=True)
    except OSError as error:
        return error.errno if error.errno in DISK else None
    return None


def _is_read_only(facts: os.statvfs_result) -> bool:
    return bool(facts.f_flag & os.ST_RDONLY)


def _has_no_inodes(facts: os.statvfs_result) -> bool:
    """Whether a disk that counts its files (some do not) has no room for those of a run."""
    return facts.f_files > 0 and facts.f_favail < FILES


def _file_limit(folder: RunFolder, error: BaseException | None) -> int | None:
    """The limit on file sizes in bytes, where one was met."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    number = _number(error)
    unsure = number is None and not takes_nothing(folder)
    return limit if limit != resource.RLIM_INFINITY and (number == errno.EFBIG or unsure) else None


def _place(folder: RunFolder, error: BaseException | None) -> Path:
    """A folder on the disk that is meant: the error's own, else of those that a run writes to the worst."""
    if (named := _named(error)) is not None:
        return named
    cache = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    places = [place for place in (folder.path, Path(tempfile.gettempdir()), cache) if place.is_dir()]
    number = _number(error)
    if number is not None and number not in FULL:
        return next((place for place in places if _is_read_only(os.statvfs(place))), folder.path)
    if takes_nothing(folder):
        return folder.path
    return min(places, key=lambda place: shutil.disk_usage(place).free)


def _named(error: BaseException | None) -> Path | None:
    """The folder of the file that a disk error names."""
    for one in _chain(error):
        name = (one.filename2 or one.filename) if isinstance(one, OSError) and one.errno in DISK else None
        if isinstance(name, str):  # of two, the second is written to
            file = Path(name)  # relative to a folder that was open, where it is not absolute
            return next((path for path in file.parents if path.is_dir()), None) if file.is_absolute() else None
    return None


def _mount(place: Path) -> Path:
    """Where a folder's disk is mounted."""
    place = place.resolve()
    return next((path for path in (place, *place.parents) if path.is_mount()), place)


def _needed(folder: RunFolder) -> int:
    """About how many bytes a run writes until its next checkpoint is whole."""
    latest = Checkpoints(folder).latest()
    if latest is not None:
        return LOGS + sum(file.stat().st_size for file in latest.rglob("*") if file.is_file())
    return LOGS + BYTES_OF_A_PARAMETER * _trained(folder)


def _trained(folder: RunFolder) -> int:
    """Parameters that a run trains, as it said when it began; 0 where it did not come so far."""
    with suppress(OSError):
        for event in records(folder.events, NEWS):
            trained = event.get("trainable")
            if event.get("type") == "model" and isinstance(trained, int) and is_whole(trained):
                return trained
    return 0


def _bytes(amount: float) -> str:
    return " ".join(size(amount))
