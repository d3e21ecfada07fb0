"""Explains a disk that is full, read-only or failing: which disk, how many bytes are missing, and what to do."""

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

from llf_core.runs.checkpoints import Checkpoints, recoverable_message
from llf_core.runs.formatting import size
from llf_core.runs.jsonl import MAX_NEW_BYTES, is_count, records
from llf_core.untrusted import leads_to_folder, real_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llf_core.runs.folder import RunFolder

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
FAILING = frozenset({errno.EIO, errno.ESTALE})
DISK = FULL | FAILING | {errno.EROFS}
TORCH_MESSAGES = ("file write failed", "failed writing file", "unexpected pos", "iostream error")
"""Messages of torch.save for disk errors, which lack the error number."""
RUST_ERROR_NUMBER = re.compile(r"\bos error (\d+)\b")
"""Format of the error number in messages of Rust libraries (safetensors, tokenizers)."""
FULL_BELOW_BYTES = 2**18
"""Free bytes below which a disk counts as full if there is no error number."""
LOG_BYTES = 2**20
MIN_FREE_INODES = 32
BYTES_PER_PARAMETER = 12
"""Checkpoint bytes per trained parameter: the float32 value and the two moments of Adam."""


def is_disk_error(error: BaseException | None) -> bool:
    """Whether an error or one of its causes means that a disk is full, read-only or failing.

    A used-up quota and an exceeded file size limit count as a full disk. Messages are searched too, since torch,
    safetensors and tokenizers raise errors of their own.
    """
    return any(_number_of(one) is not None or _is_disk_error(one) for one in _chain(error))


def is_unwritable(folder: RunFolder) -> bool:
    """Whether a run's disk is full or read-only; False for a disk that does not answer."""
    facts = _facts(folder.path)
    if facts is None:
        return False
    full = facts.f_bavail * facts.f_frsize < FULL_BELOW_BYTES
    return full or _is_read_only(facts) or _has_no_inodes(facts)


def remove_partial_files(folder: RunFolder) -> None:
    """Remove incomplete checkpoints and results as far as possible, to make room for the final status."""
    with suppress(OSError):
        Checkpoints(folder).remove_unfinished()
    shutil.rmtree(folder.path / ".output", ignore_errors=True)


def failure_message(folder: RunFolder, error: BaseException | None = None) -> tuple[str, str]:
    """Explain a disk error of a run, and what to do about it. Call `remove_partial_files` first.

    Where the error has no number, a small file is written to the run's folder and removed, to see what the disk does.
    """
    safe = recoverable_message(folder)
    limit = _file_limit(folder, error)
    if limit is not None:
        return (
            f"A file reached the file size limit of {_bytes(limit)} (`ulimit -f`). {safe}",
            "Raise the limit in the environment that starts the run, then resume.",
        )
    number = error_number(error)
    if number is None and not is_unwritable(folder):
        number = _probe(folder.path)  # dropped by a library
    what, remedy = _describe(_place(folder, error), number, _bytes_needed(folder), "The run", "to continue")
    return f"{what} {safe}", f"{remedy}, then resume." if remedy else "Resume."


def start_message(place: Path, error: BaseException) -> str:
    """Explain why a run cannot start in `place`, in sentences for the user."""
    place = _nearest(place)
    if (number := error_number(error)) == errno.EFBIG:
        limit = _bytes(resource.getrlimit(resource.RLIMIT_FSIZE)[0])
        return f"Runs cannot start in {place}: the file size limit is {limit} (`ulimit -f`). Raise it first."
    free = 0 if number == errno.EDQUOT else _free(place)
    what, remedy = _describe(place, number, LOG_BYTES if free < LOG_BYTES else free + LOG_BYTES, "A run")
    return f"Runs cannot start. {what} {remedy}, then start it again." if remedy else f"Runs cannot start. {what}"


def command_message(error: OSError, place: Path) -> str:
    """Explain a disk error, in sentences for the user; `place` is used if the error names no file."""
    what, remedy = _describe(_error_folder(error) or place, error_number(error), 0, "")
    return f"{what} {remedy}, then try again." if remedy else f"{what} Try again."


def _describe(place: Path, number: int | None, needed: int, who: str, purpose: str = "") -> tuple[str, str]:
    """Describe the problem of a disk, and what to do about it, which is empty if the disk accepts writes again."""
    place = _nearest(place)
    mount, facts = _mount(place), _facts(place)
    if facts is None:
        return f"The disk at {mount} does not answer.", "Check the disk, or the connection to the network drive"
    if number == errno.EROFS or (number is None and _is_read_only(facts)):
        what = f"The disk at {mount} is read-only: files cannot be written."
        return what, "Make it writable (the system remounts a failing disk read-only: see `dmesg`)"
    if number in FAILING:
        what = f"The disk at {mount} failed: {os.strerror(number or 0)}."
        return what, "Check the disk, or the connection to the network drive (see `dmesg`)"
    if number in {None, errno.ENOSPC} and _has_no_inodes(facts):
        free_files = f"{facts.f_favail:,} of its {facts.f_files:,} inodes are free"
        what = f"The disk at {mount} is out of inodes: {free_files}, and a run needs about {MIN_FREE_INODES}."
        return what, "Remove files (`llf runs clean` removes deleted runs for good)"
    quota = number == errno.EDQUOT
    free = 0 if quota else facts.f_bavail * facts.f_frsize
    missing = needed - free
    if missing <= (0 if needed else -LOG_BYTES) and not quota:
        return f"The disk at {mount} was full. It has {_bytes(free)} free now.", ""
    what = f"Your quota of the disk at {mount} is used up."
    if not quota:
        what = f"The disk is full: {mount} has {_bytes(free)} free of {_bytes(facts.f_blocks * facts.f_frsize)}."
    if needed:
        what = f"{what} {who} needs about {_bytes(missing)} more{purpose and ' '}{purpose}."
    return what, f"Free {'that much' if needed else 'space'} (`llf runs clean` removes deleted runs for good)"


def _is_disk_error(error: BaseException) -> bool:
    return not (isinstance(error, OSError) and error.errno is not None) and any(
        sign in str(error) for sign in TORCH_MESSAGES
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def error_number(error: BaseException | None) -> int | None:
    """The number of a disk error in an error, its causes or their messages, such as `errno.ENOSPC`."""
    return next((number for one in _chain(error) if (number := _number_of(one)) is not None), None)


def _number_of(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in DISK else None
    text = str(error)
    if match := RUST_ERROR_NUMBER.search(text):
        return int(match[1]) if int(match[1]) in DISK else None
    return next((number for number in DISK if os.strerror(number) in text), None)


def _probe(place: Path) -> int | None:
    """Error number from writing a small file to a folder; None if the write succeeds."""
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


def _facts(place: Path) -> os.statvfs_result | None:
    """Size and flags of a folder's file system; None if it does not answer."""
    try:
        return os.statvfs(place)
    except OSError:
        return None


def _free(place: Path) -> int:
    facts = _facts(place)
    return 0 if facts is None else facts.f_bavail * facts.f_frsize


def _is_read_only(facts: os.statvfs_result) -> bool:
    return bool(facts.f_flag & os.ST_RDONLY)


def _has_no_inodes(facts: os.statvfs_result) -> bool:
    return facts.f_files > 0 and facts.f_favail < MIN_FREE_INODES


def _file_limit(folder: RunFolder, error: BaseException | None) -> int | None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    number = error_number(error)
    unsure = number is None and not is_unwritable(folder)
    return limit if limit != resource.RLIM_INFINITY and (number == errno.EFBIG or unsure) else None


def _place(folder: RunFolder, error: BaseException | None) -> Path:
    """A folder on the affected disk: from the error, else the fullest of the disks that the run writes to."""
    if (named := _error_folder(error)) is not None:
        return named
    cache = Path(os.path.expanduser(os.environ.get("HF_HOME") or "~/.cache/huggingface"))  # noqa: PTH111 - it takes unknown users as they are
    places = [place for place in (folder.path, _temporary_folder(), cache) if leads_to_folder(place)]
    number = error_number(error)
    if number is not None and number not in FULL:
        return next((place for place in places if (facts := _facts(place)) and _is_read_only(facts)), folder.path)
    if is_unwritable(folder):
        return folder.path
    return min(places, key=_free)


def _temporary_folder() -> Path:
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:  # it looks for one that takes a file
        return Path(os.environ.get("TMPDIR") or os.sep)


def _error_folder(error: BaseException | None) -> Path | None:
    for one in _chain(error):
        name = (one.filename2 or one.filename) if isinstance(one, OSError) and one.errno in DISK else None
        if isinstance(name, str):  # os.rename and os.link name two paths; the second is written
            file = Path(name)  # a relative path refers to an open folder descriptor
            return next(filter(leads_to_folder, file.parents), None) if file.is_absolute() else None
    return None


def _nearest(place: Path) -> Path:
    return next(path for path in (place.absolute(), *place.absolute().parents) if leads_to_folder(path))


def _mount(place: Path) -> Path:
    place = real_path(place)
    return next((path for path in (place, *place.parents) if path.is_mount()), place)


def _bytes_needed(folder: RunFolder) -> int:
    with suppress(OSError):  # a disk that fails; the estimate from the parameters then has to do
        if (latest := Checkpoints(folder).latest()) is not None:
            return LOG_BYTES + sum(file.stat().st_size for file in latest.rglob("*") if file.is_file())
    return LOG_BYTES + BYTES_PER_PARAMETER * _trained(folder)


def _trained(folder: RunFolder) -> int:
    """Number of trained parameters according to the event `model`; 0 if the run did not get that far."""
    with suppress(OSError):
        for event in records(folder.events, MAX_NEW_BYTES):
            trained = event.get("trainable")
            if event.get("type") == "model" and isinstance(trained, int) and is_count(trained):
                return trained
    return 0


def _bytes(amount: float) -> str:
    return " ".join(size(amount))
