"""Files uploaded to a form that exist nowhere else: `$LLF_HOME/uploads`."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from llf_core.runs.config_file import read_config
from llf_core.untrusted import read_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

UPLOADS = "uploads"
DAY = 86400.0
UNUSED_DAYS = 7
"""Days that a file is kept after its last use in a form, even if no run refers to it."""


def unused_uploads(root: Path) -> list[Path]:
    """Files that no form has used for a week and no run refers to, oldest first.

    Runs in the bin count too, since they may be restored. A run whose config cannot be opened refers to none.
    """
    before = time.time() - UNUSED_DAYS * DAY
    found = []
    with suppress(OSError), os.scandir(root / UPLOADS) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                facts = entry.stat(follow_symlinks=False)
                if facts.st_mtime < before and entry.is_file(follow_symlinks=False):
                    found.append((facts.st_mtime, root / UPLOADS / entry.name))
    named = _named(root) if found else ""
    return [path for _, path in sorted(found) if path.name not in named]


def mark_used(root: Path, names: Iterable[str]) -> None:
    """Mark files in `uploads` as used now, so that `llf runs clean` keeps them; errors and other names are ignored.

    A file's time is changed once a day at most, so that a form may call this often.
    """
    for name in names:
        path = root / name  # an absolute path stays unchanged
        with suppress(OSError, ValueError):
            if path.parent == root / UPLOADS and path.stat().st_mtime < time.time() - DAY:
                os.utime(path)


def _named(root: Path) -> str:
    """The configs of all runs that refer to `uploads`, as one text."""
    texts = []
    for place in ("runs", "bin"):
        for config in (root / place).glob("*/config.yaml"):
            with suppress(OSError):
                if UPLOADS.encode() in (data := read_bytes(config)):
                    texts.append(data.decode("utf-8", "replace"))  # of one that is no YAML any more, all that is known
                    texts.append(json.dumps(read_config(config), ensure_ascii=False, default=str))
    return "\n".join(texts)
