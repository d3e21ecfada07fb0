"""Copies a result to `output_dir` atomically."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.config import ConfigError, Problem
from llf_core.config.name_checks.output_folder import (
    KEY,
    MARKER,
    fingerprint,
    foreign_entry,
    recorded,
    refusal,
    walk,
)
from llf_core.config.paths import expanded
from llf_core.runs.archive import check_free_space, replace_folder
from llf_core.runs.disk_errors import command_message, is_disk_error
from llf_core.runs.files import json_bytes, replace_file, sync_folder
from llf_core.untrusted import read_object_or_empty
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.config import RunConfig
    from llf_core.runs import RunFolder

CHUNK = 2**20


class OutputCopyError(UserError):
    """The result could not be copied and stays in the run's folder."""


def check_output_dir(config: RunConfig, folder: RunFolder) -> None:
    """Check before training that `output_dir` can receive the result. Its parent folders are created and stay.

    Raises:
        ConfigError: it contains files that are not an unchanged LLF result; is or contains something never replaced
            (what the config reads, the home or working directory, folders of LLF); is a link or not a folder; or
            cannot be created or written. See `refusal`.
    """
    output_dir = config.training.output_dir
    if not output_dir:
        return
    target = expanded(output_dir)
    why = refusal(target, config, folder.home) or _not_writable(target)
    if why:
        raise ConfigError((Problem("invalid", KEY, output_dir, why),))


def copy_output(config: RunConfig, folder: RunFolder) -> str:
    """Copy `output/` to `output_dir` atomically (`replace_folder`), replacing an earlier result.

    Raises:
        OutputCopyError: `output_dir` must not be replaced (see `check_output_dir`); the disk is full, or a file
            cannot be read or written. The folder is unchanged; only if the disk fails after the renames, or another
            run took its place, the earlier result is kept as `<name>.previous`.
    """
    target = expanded(str(config.training.output_dir))
    why = refusal(target, config, folder.home, thorough=True)
    if why:
        raise OutputCopyError(f"The result was not copied. {why} It is complete in {folder.output}.")
    new = target.with_name(f".{folder.id[:100]}-{secrets.token_hex(4)}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        check_free_space(folder.output, target.parent)
        new.mkdir()
        _copy(folder.output, new, folder.id)
        kept = _put(new, target)
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        full = is_disk_error(error) and error.strerror == os.strerror(error.errno or 0)
        why = command_message(error, target.parent) if full else f"{error.strerror or error}".rstrip(".") + "."
        message = f"The result could not be copied to {target}. {why}"
        raise OutputCopyError(f"{message} It is complete in {folder.output}. Copy it manually.") from error
    except OutputCopyError as error:
        shutil.rmtree(new, ignore_errors=True)
        raise OutputCopyError(f"The result was not copied. {error} It is complete in {folder.output}.") from error
    return f"Copied the result to {target}.{kept}"


def add_to_copy(config: RunConfig, folder: RunFolder, files: Sequence[Path]) -> None:
    """Copy at least one file beside a result in `output_dir`, if the config has one, and record it in its marker.

    Raises:
        OutputCopyError: the folder has other files than the result of this run, or a file cannot be read or written;
            the folder is unchanged, unless the disk fails during the renames.
    """
    if not config.training.output_dir:
        return
    target = expanded(str(config.training.output_dir))
    names = " and ".join(one.name for one in files)
    where = f"{names} {'are' if len(files) > 1 else 'is'} in {files[0].parent}."
    marker = read_object_or_empty(target / MARKER)
    why = refusal(target, config, folder.home)
    if not why and marker.get("run") != folder.id:
        why = f"The result in {target} is not of this run."
    if why:
        raise OutputCopyError(f"{names} could not be copied. {why} {where}")
    try:
        known = recorded(target)
        for file in files:
            size, modified = (facts := file.stat()).st_size, facts.st_mtime_ns
            known[file.name] = {"bytes": size, "modified": modified, "sha256": fingerprint(file)}
        partial = {file: target / f".{file.name}" for file in files}
        try:
            for file, copy in partial.items():
                shutil.copy2(file, copy)
            replace_file(target / MARKER, json_bytes(marker | {"files": known}))
            for file, copy in partial.items():
                copy.replace(target / file.name)
        finally:  # half a copy would count as somebody else's file
            for copy in partial.values():
                copy.unlink(missing_ok=True)
    except OSError as error:
        raise OutputCopyError(f"{names} could not be copied to {target}. {error.strerror or error}. {where}") from error


def _copy(source: Path, new: Path, run_id: str) -> None:
    """Copy and flush every file, and write the marker last."""
    files: dict[str, object] = {}
    for name, entry in walk(source):
        if entry.is_dir(follow_symlinks=False):
            (new / name).mkdir()
        elif name != MARKER:
            digest = hashlib.sha256()
            with open(entry.path, "rb") as old, (new / name).open("xb") as file:  # noqa: PTH123 - an entry's path
                while chunk := old.read(CHUNK):
                    digest.update(chunk)
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            facts = (new / name).stat()
            files[name] = {"bytes": facts.st_size, "modified": facts.st_mtime_ns, "sha256": digest.hexdigest()}
    text = json.dumps({"format": 1, "run": run_id, "files": files}, indent=1)
    with (new / MARKER).open("x", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    sync_folder(new)


def _put(new: Path, target: Path) -> str:
    """Rename a finished copy to its final name, and remove an earlier result; returns a sentence about kept files."""
    why = foreign_entry(target)  # written there during the copy
    if why:
        raise OutputCopyError(f"output_dir is {target}. {why}")
    previous = replace_folder(new, target)
    return "" if previous is None or _remove(previous) else f" Other files of that folder are now in {previous}."


def _remove(previous: Path) -> bool:
    """Remove an earlier result: files that match its marker, and folders that become empty."""
    known = recorded(previous)
    entries = list(walk(previous))
    try:
        for name, entry in reversed(entries):
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                path.rmdir()
            elif name in known and not entry.is_symlink() and fingerprint(path) == known[name].get("sha256"):
                path.unlink()
        (previous / MARKER).unlink()
        previous.rmdir()
    except OSError:
        return False
    return True


def _not_writable(target: Path) -> str:
    """Why no folder can be created next to the target; empty if it can."""
    probe = target.with_name(f".llf-{secrets.token_hex(4)}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        return (
            f"output_dir is {target}, which cannot be created ({error.strerror}). Expected a folder that can be "
            "written, or none: the result is in the run's own folder anyway."
        )
    return ""
