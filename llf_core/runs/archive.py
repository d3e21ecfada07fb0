"""Zip files of whole runs (`export_run`, `import_run`), and folders that are moved complete or not at all."""

from __future__ import annotations

import ctypes
import errno
import io
import os
import secrets
import shutil
import stat
import zipfile
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from llf_core.config.name_checks.output_folder import PREVIOUS
from llf_core.redaction.file_modes import folder_mode, make_private
from llf_core.runs.creation import rename_to_free_id
from llf_core.runs.files import sync_file, sync_folder
from llf_core.runs.folder import RunFolder, blocked_path_message, check_run_id, home_folder, open_run
from llf_core.runs.formatting import size
from llf_core.runs.listing import shown_status
from llf_core.runs.status import BrokenRunError
from llf_core.untrusted import leads_to_file, leads_to_folder, open_file, real_path
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from _typeshed import ReadableBuffer

CHUNK = 1 << 20

# fmt: off
FILES = frozenset({
    "config.yaml", "resolved.yaml", "env.json", "status.json", "metrics.jsonl", "events.jsonl", "samples.jsonl",
    "examples.jsonl", "trained.json", "replay.json", "proof.json", "log.txt", "meta.json", "output.json",
    "exports.jsonl",
})

# fmt: on
FOLDERS = frozenset({"code", "data", "checkpoints", "output", "evaluations", "predictions", "exports"})
"""With `FILES` the contents of a zip; other files are of use only on this machine, or can be computed again."""
MOST_LEVELS = 10
NAME_BYTES = 255  # of a file system
BLOCK = 4096  # bytes that an empty file or folder takes of most disks
NEEDED = ("config.yaml", "status.json")
ENDED = ("finished", "stopped", "failed", "lost")
MOST_FILES = 100_000

UNREADABLE_ZIP = (zipfile.BadZipFile, EOFError, UnicodeDecodeError, RuntimeError)
"""Errors of `zipfile` for a damaged, encrypted or unknown zip."""
EXPECTED = "Expected a zip file as llf runs export writes it."


class ArchiveError(UserError, ValueError):
    """A run could not be put into a zip file, or a zip file does not hold a valid run."""


def export_run(  # noqa: PLR0913 - what a zip has
    run_id: str,
    file: Path,
    *,
    checkpoints: bool = True,
    overwrite: bool = False,
    home: Path | str | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Path:
    """Write a run with its config, curves, code, data, result and evaluations into a zip file, for another machine.

    The zip is written under a hidden name and renamed once complete. It is not compressed. Links and files not in
    `FILES` or `FOLDERS` are left out. Bytes of a file name that are not UTF-8 are escaped.

    Args:
        progress: called with the bytes done and their total.

    Raises:
        ArchiveError: the run has not ended or lacks its status or config, the file exists, or the disk is too full.
    """
    run = open_run(run_id, home)
    _check_ended(run)
    if leads_to_folder(file):
        raise ArchiveError(f"{file} is a folder. Expected the path of a zip file.")
    if os.path.lexists(file) and not overwrite:
        raise ArchiveError(f"{file} exists. Expected a new file, or overwrite (--overwrite).")
    files = [one for one in files_below(run.path) if is_of_run(name_in_zip(one, run.path))]
    if not checkpoints:
        files = [one for one in files if run.checkpoints not in one.parents]
    if missing := [name for name in NEEDED if run.path / name not in files]:
        raise ArchiveError(f"{run.id} has no {missing[0]} of its own, without which nobody can open the zip.")
    total = sum(one.stat().st_size for one in files)
    file.parent.mkdir(parents=True, exist_ok=True)
    _check_room(file.parent, total, "The zip")
    work = file.with_name(f".{file.name[:100]}-{os.getpid()}-{secrets.token_hex(4)}")
    done = 0
    try:
        with work.open("xb") as target:
            for chunk in zip_chunks(run.path, files, run.id):
                target.write(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(min(done, total), total)
            target.flush()
            os.fsync(target.fileno())
        work.rename(file)
    finally:
        work.unlink(missing_ok=True)
    return file


def import_run(
    file: Path, *, home: Path | str | None = None, progress: Callable[[int, int], object] | None = None
) -> RunFolder:
    """Open a zip of `export_run` as a run of this machine, under its id or, if that is taken, the next free one.

    Anything that `export_run` does not write is refused: other files, links, compression, duplicate paths. The
    signature of another machine is not valid here (`trust`): the run's code runs only after the user has allowed it.

    Args:
        progress: called with the bytes done and their total.

    Raises:
        ArchiveError: the file is not a zip of a run or is damaged, or the run does not fit on the disk.
    """
    if (said := blocked_path_message(home)) is not None:
        raise NotADirectoryError(said)
    if os.path.lexists(file) and not leads_to_file(file):
        raise ArchiveError(f"{file} is not a regular file. Expected a zip file of llf runs export.")
    runs = home_folder(home) / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    mode = folder_mode()
    with os.fdopen(open_file(real_path(file)), "rb") as source:
        try:
            archive = zipfile.ZipFile(source)
        except UNREADABLE_ZIP as error:
            raise _unreadable(file, error) from error
        run_id, entries, needed = _entries(archive, file, os.fstat(source.fileno()).st_size)
        _check_room(runs, needed, f"The run {run_id}")
        work = runs / f".new-{os.getpid()}-{secrets.token_hex(4)}"
        try:
            work.mkdir(mode=0o777 if mode is None else mode)
            _unpack(archive, entries, work, file, progress)
            make_private(work)
            return rename_to_free_id(work, runs, run_id)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise


def is_of_run(name: str) -> bool:
    """Whether a path below the run's folder is part of a run's zip."""
    parts = name.split("/")
    return (
        (parts[0] in FOLDERS if len(parts) > 1 else name in FILES)
        and len(parts) <= MOST_LEVELS
        and name.isprintable()
        # Hidden files are locks, and files that were not complete.
        and all(part and part[0] != "." and len(os.fsencode(part)) <= NAME_BYTES for part in parts)
    )


def _check_ended(run: RunFolder) -> None:
    try:
        state = shown_status(run).state
    except BrokenRunError as error:
        raise ArchiveError(f"{run.id} cannot be read: {error}") from error
    if state not in ENDED:
        raise ArchiveError(f"{run.id} is {state}. Expected a run that has ended. Stop it first.")


def _check_room(place: Path, needed: int, what: str) -> None:
    free = shutil.disk_usage(place).free
    if needed > free:
        wants, has = (" ".join(size(amount)) for amount in (needed, free))
        raise ArchiveError(f"{what} takes {wants} and the disk of {place} has {has} free. Free space there first.")


def _entries(archive: zipfile.ZipFile, file: Path, archive_bytes: int) -> tuple[str, list[zipfile.ZipInfo], int]:
    """Run id, entries and required bytes of an archive, all checked."""
    entries = archive.infolist()
    names = [one.filename.partition("/") for one in entries]
    tops = {top for top, _, _ in names}
    if len(entries) > MOST_FILES or len(tops) != 1:
        raise ArchiveError(f"{file} is no zip of a run. Expected one folder in it, with config.yaml and status.json.")
    (top,) = tops
    try:
        check_run_id(top)
    except ValueError as error:
        raise ArchiveError(f"{file} is no zip of a run. {error}") from error
    for one, (_, _, name) in zip(entries, names, strict=True):
        if one.header_offset < 0:
            raise ArchiveError(f"{file} is damaged: its beginning is missing. Copy the zip file again.")
        if not is_of_run(name) or stat.S_IFMT(one.external_attr >> 16) not in {0, stat.S_IFREG}:
            raise ArchiveError(f"{file} has the entry {one.filename[:80]!r}, which a run does not have. {EXPECTED}")
        if one.compress_type != zipfile.ZIP_STORED or one.compress_size != one.file_size:
            raise ArchiveError(f"{file} has the compressed entry {one.filename[:80]!r}. {EXPECTED}")
    inside = {name for _, _, name in names}
    folders = {str(folder) for name in inside for folder in PurePosixPath(name).parents}
    if len(inside) < len(names) or inside & folders:
        raise ArchiveError(f"{file} is damaged: it has two files of one path. Copy the zip file again.")
    total = sum(one.file_size for one in entries)
    if total > archive_bytes:
        raise ArchiveError(f"{file} is damaged: its files overlap. Copy the zip file again.")
    if missing := [name for name in NEEDED if name not in inside]:
        raise ArchiveError(f"{file} is no zip of a run: it has no {top}/{missing[0]}.")
    return top, entries, total + BLOCK * (len(inside) + len(folders))


def _unpack(
    archive: zipfile.ZipFile,
    entries: list[zipfile.ZipInfo],
    work: Path,
    file: Path,
    progress: Callable[[int, int], object] | None,
) -> None:
    done, total = 0, sum(one.file_size for one in entries)
    for one in entries:
        path = work.joinpath(*PurePosixPath(one.filename).parts[1:])
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as target:
            for data in _chunks(archive, one, file):
                target.write(data)
                done += len(data)
                if progress is not None:
                    progress(done, total)
        if path.stat().st_size != one.file_size:
            raise ArchiveError(f"{one.filename[:80]} is damaged. Copy the zip file again.")


def _chunks(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, file: Path) -> Iterator[bytes]:
    try:
        with archive.open(entry) as source:
            while data := source.read(CHUNK):
                yield data
    except UNREADABLE_ZIP as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> ArchiveError:
    return ArchiveError(f"{file} is not a readable zip file: {error}. Expected one of llf runs export.")


def files_below(root: Path) -> list[Path]:
    """Regular files below a folder, sorted, to zip them. Links are skipped: they could lead to any file of the machine.

    Each file is opened once, because an error can be reported only before a download begins.
    """
    if root.is_symlink():
        return []
    found = []
    for place, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not os.path.islink(os.path.join(place, name))]  # noqa: PTH114, PTH118
        paths = (root.joinpath(place, name) for name in names)
        found += [path for path in paths if path.is_file() and not path.is_symlink()]
    found.sort()
    for path in found:  # before the answer begins, which could then only break off
        os.close(open_file(path, root))
    return found


def name_in_zip(path: Path, root: Path) -> str:
    """Path of a file below a folder, with escapes for bytes that are not UTF-8."""
    return os.fsencode(path.relative_to(root)).decode("utf-8", "backslashreplace")


def zip_chunks(root: Path, files: list[Path], top: str) -> Iterator[bytes]:
    """Bytes of an uncompressed zip of files (see `files_below`) in a folder `top`, about 1 MiB at a time."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED, strict_timestamps=False) as archive:
        for path in files:
            name = f"{top}/{name_in_zip(path, root)}"
            info = zipfile.ZipInfo.from_file(path, name, strict_timestamps=False)
            with os.fdopen(open_file(path, root), "rb") as source, archive.open(info, "w", force_zip64=True) as target:
                while data := source.read(CHUNK):
                    target.write(data)
                    yield sink.take()
    yield sink.take()


class _Sink(io.RawIOBase):
    """A write-only file that keeps data until it is taken, so that `zipfile` can write to a generator."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []

    def write(self, data: ReadableBuffer) -> int:
        chunk = bytes(data)
        self._parts.append(chunk)
        return len(chunk)

    def take(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        return data


READY = ".new"
"""Suffix of a complete folder that is about to take its name."""
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h


def move(source: Path, target: Path) -> None:
    """Move a file, folder or link: by renaming, or to another disk by copying, flushing, renaming and removing.

    If the process is killed at any point, one of the two paths holds everything. A partial copy, or the remains of the
    source, have a hidden name, which `llf runs clean` removes among the runs and in the bin. Pipes, sockets and devices
    in a folder are lost on the way to another disk.
    """
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    else:
        return
    check_free_space(source, target.parent)
    hidden = f".new-{os.getpid()}-{secrets.token_hex(4)}"  # a partial copy is never listed
    new, old = target.with_name(hidden), source.with_name(hidden)
    try:
        if source.is_symlink():
            new.symlink_to(source.readlink())
        elif source.is_dir():
            copy_folder(source, new, links=True)
            _flush_all(new)
        else:
            shutil.copy2(source, new)
            sync_file(new)
        new.rename(target)
        try:
            sync_folder(target.parent)
            source.rename(old)
        except BaseException:
            target.rename(new)
            raise
    except BaseException:
        _remove(new)
        raise
    _remove(old)


def check_free_space(source: Path, place: Path) -> None:
    """Check that a copy of a file or folder fits on another disk; links take no space."""
    files = source.rglob("*") if source.is_dir() and not source.is_symlink() else (source,)
    needed = sum(facts.st_size for facts in (file.lstat() for file in files) if stat.S_ISREG(facts.st_mode))
    check_free_bytes(needed, place, source.name)


def check_free_bytes(needed: int, place: Path, what: str) -> None:
    """Check that a disk has room for some bytes."""
    disk = shutil.disk_usage(place)
    if needed > disk.free:
        missing, free, total = (" ".join(size(amount)) for amount in (needed - disk.free, disk.free, disk.total))
        raise OSError(
            errno.ENOSPC,
            f"{what} does not fit into {place}: the disk has {free} free of {total}, and it needs {missing} "
            "more. Free that much, then try again.",
        )


def copy_folder(
    source: Path, target: Path, copy: Callable[[str, str], object] = shutil.copy2, *, links: bool = False
) -> None:
    """Copy the regular files and folders of a folder; not pipes, sockets and devices, since reading one could block."""
    failed: list[OSError] = []

    def copy_one(old: str, new: str) -> object:
        if failed:
            raise failed[0]  # stops the walk
        try:
            return copy(old, new)
        except OSError as error:
            failed.append(error)
            raise

    try:
        shutil.copytree(source, target, symlinks=True, copy_function=copy_one, ignore=_left_out(links=links))
    except shutil.Error as error:  # a list of failures
        if failed:
            raise failed[0] from None
        first = error.args[0][0] if error.args and error.args[0] else ("", "", str(error))
        raise OSError(errno.EINVAL, str(first[2])) from None


def _left_out(*, links: bool) -> Callable[[str, list[str]], set[str]]:
    def names(folder: str, inside: list[str]) -> set[str]:
        kinds = {name: os.lstat(Path(folder, name)).st_mode for name in inside}
        kept = (stat.S_ISREG, stat.S_ISDIR, *((stat.S_ISLNK,) if links else ()))
        return {name for name, kind in kinds.items() if not any(is_kind(kind) for is_kind in kept)}

    return names


def _flush_all(folder: Path) -> None:
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            path = Path(place, name)
            if not path.is_symlink():
                sync_file(path)
        sync_folder(Path(place))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def replace_folder(new: Path, folder: Path) -> Path | None:
    """Rename a complete folder to `folder`, atomically where the system can exchange two names.

    If the process is killed, the earlier and the new folder are complete under `NAME`, `NAME.previous` and `NAME.new`;
    where names can be exchanged, `NAME` is always one of them.

    Returns:
        The earlier folder, as `NAME.previous` (or `NAME.previous-2`, …); None if there was none, or an empty one.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        new.rename(folder)
        sync_folder(folder.parent)
        return None
    ready, previous = new.rename(_free_name(folder, READY)), _free_name(folder, PREVIOUS)
    if _exchange(ready, folder):
        ready.rename(previous)
    else:
        try:
            folder.rename(previous)
            ready.rename(folder)
        except OSError:
            with suppress(OSError):  # it was not renamed, or somebody else's folder has the name by now
                previous.rename(folder)
            ready.rename(new)
            raise
    sync_folder(folder.parent)
    return previous


def _free_name(folder: Path, suffix: str) -> Path:
    number = 1
    while os.path.lexists(free := folder.with_name(f"{folder.name}{suffix}{'' if number == 1 else f'-{number}'}")):
        number += 1
    return free


def _exchange(one: Path, other: Path) -> bool:
    """Exchange the names of two folders by Linux's renameat2; False if the system or the file system cannot."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:
        return False
    return bool(rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0)
