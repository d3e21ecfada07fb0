"""The final status of an attempt whose disk cannot store it, kept in memory until the machine restarts.

Without a final state in its folder a run is `lost`; the reason is then read from here, for the same user on the same
machine.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.runs.files import json_bytes, replace_file
from llf_core.untrusted import NotPlainError, json_value, leads_to_folder, read_bytes, real_path

if TYPE_CHECKING:
    from llf_core.runs.folder import RunFolder

MEMORY = Path("/dev/shm")  # noqa: S108 - in a folder there that only its owner may enter


def keep_reason(folder: RunFolder, attempt: int, reason: str) -> None:
    """Keep the reason of an attempt's end outside its folder, unless one is kept already. Never raises an OSError."""
    if kept_reason(folder, attempt) is not None:
        return
    with suppress(OSError):
        place = _place()
        place.mkdir(mode=0o700, exist_ok=True)
        if _is_own(place):
            value = {"run": str(real_path(folder.path)), "attempt": attempt, "reason": reason}
            replace_file(place / _name(folder), json_bytes(value))


def kept_reason(folder: RunFolder, attempt: int) -> str | None:
    """The reason kept by `keep_reason`."""
    try:
        place = _place()
        if not _is_own(place):
            return None
        value = json_value(read_bytes(place / _name(folder)))
    except (OSError, NotPlainError):
        return None
    if not isinstance(value, dict) or value.get("run") != str(real_path(folder.path)):
        return None
    reason = value.get("reason")
    return reason if value.get("attempt") == attempt and isinstance(reason, str) else None


def forget_reason(folder: RunFolder) -> None:
    """Remove the kept reason of a run, since its next attempt begins. Never raises an OSError."""
    with suppress(OSError):
        place = _place()
        if _is_own(place):
            (place / _name(folder)).unlink(missing_ok=True)


def _place() -> Path:
    memory = MEMORY if leads_to_folder(MEMORY) else Path(tempfile.gettempdir())
    return memory / f"llf-{os.getuid()}"


def _is_own(place: Path) -> bool:
    """Whether a folder belongs to this user and nobody else can write to it."""
    facts = place.lstat()
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid() and not facts.st_mode & 0o077


def _name(folder: RunFolder) -> str:
    return f"{hashlib.sha256(os.fsencode(real_path(folder.path))).hexdigest()[:32]}.json"
