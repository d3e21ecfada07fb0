"""Checks that `output_dir` may receive a result: a folder with other files is never overwritten."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.config.field_specs import fields
from llf_core.config.name_checks.model_folder import CheckResult
from llf_core.config.paths import expanded, is_there
from llf_core.config.rule import Fix, Problem
from llf_core.untrusted import leads_to_folder, real_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llf_core.config.run_config import RunConfig

KEY = "output_dir"
MARKER = "llf_result.json"
"""Written last into a copied result: `{"format": 1, "run", "files": {name: {"bytes", "modified", "sha256"}}}`."""
LARGEST_MARKER = 16 * 2**20
HASHED_QUICKLY = 64 * 2**20
"""Maximum bytes of a file that a quick check hashes if its modification time differs."""
OWN = ("runs", "bin", "models", "cache", "locks", "uploads", "chats", "kept", "trust.key", "trusted.json")
"""Entries of `LLF_HOME`, into which nothing else may be written."""
PREVIOUS = ".previous"
"""Suffix of an earlier result while it is replaced."""
EXPECTED = "Expected a new folder, an empty folder, or one with nothing but an earlier result of LLF."


def check_output_dir(config: RunConfig, home: Path | None = None) -> CheckResult:
    """Check that `output_dir` may receive a result; the fix of an error is another folder."""
    output_dir = config.training.output_dir
    why = refusal(expanded(output_dir), config, home) if output_dir else ""
    if not output_dir or not why:
        return CheckResult()
    fixes = [Fix("Do not copy", {KEY: None})]
    if Path(output_dir).name and not is_there(beside := Path(f"{output_dir.rstrip('/')}-tuned")):
        fixes.insert(0, Fix(f"Use {beside}", {KEY: str(beside)}))
    return CheckResult((Problem("invalid", KEY, output_dir, why, tuple(fixes), keys=(KEY,)),))


def refusal(target: Path, config: RunConfig, home: Path | None = None, *, thorough: bool = False) -> str:
    """Reason why a folder may not receive a result; empty if it may. Files that LLF did not write are never lost.

    Args:
        home: `LLF_HOME`, whose own folders receive no result; None if it is not known.
        thorough: compare each file of an earlier result by its content, not only small ones whose modification time
            differs.
    """
    why = "" if home is None else _of_home(target, home)
    why = why or _protected(target, config) or _no_folder(target) or _closed(target)
    why = why or foreign_entry(target, thorough=thorough)
    return f"output_dir is {target}. {why} {EXPECTED}" if why else ""


def foreign_entry(target: Path, *, thorough: bool = False) -> str:
    """Describe the first entry of a folder that is a link or not an unchanged result of LLF; empty if there is none."""
    try:
        known = recorded(target)
        said = (_said(name, entry, known, thorough=thorough) for name, entry in walk(target))
        return next((one for one in said if one), "")
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"It cannot be read ({error.strerror})."


def _said(name: str, entry: os.DirEntry[str], known: dict[str, Any], *, thorough: bool) -> str:
    """Reason why an entry is not part of an unchanged result; empty if it is."""
    if entry.is_symlink():
        return f"It contains the link {name}, which LLF did not write."
    if entry.is_dir(follow_symlinks=False):
        own = any(one.startswith(f"{name}/") for one in known)
        return "" if own else f"It contains the folder {name}, which LLF did not write."
    if name == MARKER and known:
        return ""
    if name not in known:
        return f"It contains {name}, which LLF did not write."
    same = _unchanged(Path(entry.path), entry.stat(follow_symlinks=False), known[name], thorough=thorough)
    return "" if same else f"It contains a result of LLF in which {name} was modified."


def recorded(target: Path) -> dict[str, Any]:
    """Bytes, modification time in ns and SHA-256 of each file in a result's marker; empty without a valid one."""
    try:
        descriptor = os.open(target / MARKER, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return {}
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode) or facts.st_size > LARGEST_MARKER:
        os.close(descriptor)  # a folder cannot be opened as a file
        return {}
    with os.fdopen(descriptor, "rb") as file:
        try:
            value = json.loads(file.read(LARGEST_MARKER))
        except (OSError, ValueError, RecursionError):
            return {}
    files = value.get("files") if isinstance(value, dict) and value.get("format") == 1 else None
    return {name: one for name, one in files.items() if isinstance(one, dict)} if isinstance(files, dict) else {}


def walk(folder: Path, inside: str = "") -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Iterate over everything below a folder, each folder before its content. Links are not followed."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda one: one.name):
            name = f"{inside}{entry.name}"
            yield name, entry
            if entry.is_dir(follow_symlinks=False):
                yield from walk(Path(entry.path), f"{name}/")


def fingerprint(path: Path) -> str:
    """The SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unchanged(path: Path, facts: os.stat_result, known: dict[str, Any], *, thorough: bool) -> bool:
    if not stat.S_ISREG(facts.st_mode) or facts.st_size != known.get("bytes"):
        return False
    if not thorough and (facts.st_mtime_ns == known.get("modified") or facts.st_size > HASHED_QUICKLY):
        return True
    return fingerprint(path) == known.get("sha256")


def _no_folder(target: Path) -> str:
    """Reason why an existing path cannot be replaced by a folder; empty if it can, or if it does not exist."""
    try:
        facts = target.lstat()
        named = target.readlink() if stat.S_ISLNK(facts.st_mode) else None
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"It cannot be created ({error.strerror})."
    if named is not None:
        return f"It is a link to {named}, and links are not followed."
    if not stat.S_ISDIR(facts.st_mode):
        return "It is not a folder."
    return (
        "It is the root of a disk, which cannot be replaced. Expected a folder below it." if target.is_mount() else ""
    )


def _closed(target: Path) -> str:
    """Reason why the folder cannot be created, without creating anything; empty if it can."""
    place = next(filter(leads_to_folder, target.parents), target.parent)
    try:
        facts, longest = os.statvfs(place), os.pathconf(place, "PC_NAME_MAX")
    except OSError as error:
        return f"It cannot be created ({error.strerror})."
    if facts.f_flag & os.ST_RDONLY:
        return f"The disk of {place} is read-only."
    if not os.access(place, os.W_OK | os.X_OK):
        return f"You do not have permission to write to {place}."
    most = longest - len(f"{PREVIOUS}-999")
    if len(os.fsencode(target.name)) > most:
        return f"Its name has {len(os.fsencode(target.name))} bytes. Expected at most {most}."
    return ""


def _of_home(target: Path, home: Path) -> str:
    """Reason why a folder of LLF itself may not receive a result; empty for any other folder."""
    resolved, home = real_path(target), real_path(home)
    own = [home / name for name in OWN]
    if resolved == home or resolved in home.parents or any(one == resolved or one in resolved.parents for one in own):
        return f"LLF stores its own files there, in {home}."
    return ""


def _protected(target: Path, config: RunConfig) -> str:
    """Reason why a path is or contains a folder that is never replaced; empty if it does not."""
    resolved = real_path(target)
    for what, path in _kept(config):
        other = real_path(path)
        if resolved == other:
            return f"It is {what}."
        if resolved in other.parents:
            return f"It contains {what} ({path})."
    return ""


def _kept(config: RunConfig) -> Iterator[tuple[str, Path]]:
    """Paths that are never overwritten: home, working directory, and what the config reads."""
    for spec in fields():
        if spec.path in {"model", "adapters", "data"}:
            value = config.get(spec.key)
            for name in value if isinstance(value, tuple) else (value,):
                if name and is_there(expanded(name)):
                    yield f"what {spec.key} names", expanded(name)
    yield "your home directory", expanded("~")
    try:
        yield "the working directory", Path.cwd()
    except FileNotFoundError:  # removed meanwhile
        return
