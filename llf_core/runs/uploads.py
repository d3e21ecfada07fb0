"""Data that a form was given and that lies nowhere else: `$LLF_HOME/uploads`."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from llf_core.door import read_bytes
from llf_core.runs.config_file import read_config

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

UPLOADS = "uploads"
DAY = 86400.0
UNUSED_DAYS = 7
"""So long after the last use by a form a file is kept, whether a run names it or not."""


def unused_uploads(root: Path) -> list[Path]:
    """The files that no form has used for a week and that no run names, those in the bin included; oldest first.

    Args:
        root: `LLF_HOME`.
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


def hold(root: Path, names: Iterable[str]) -> None:
    """Counts those of some files that lie in `uploads` as used now; costs a stat a file.

    Args:
        root: `LLF_HOME`.
        names: paths, or names of data sets.
    """
    for name in names:
        path = root / name  # an absolute name stays as it is
        with suppress(OSError, ValueError):
            if path.parent == root / UPLOADS and path.stat().st_mtime < time.time() - DAY:
                os.utime(path)


def _named(root: Path) -> str:
    """The configs of all runs that name something in `uploads`, as one text."""
    texts = []
    for place in ("runs", "bin"):
        for config in (root / place).glob("*/config.yaml"):
            with suppress(OSError):
                if UPLOADS.encode() in read_bytes(config):
                    texts.append(json.dumps(read_config(config), ensure_ascii=False, default=str))
    return "\n".join(texts)
