from __future__ import annotations

import fnmatch
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from llf_core.config.evaluation_keys import is_in_file
from llf_core.config.model import EMBEDDED

if TYPE_CHECKING:
    from llf_core.config.option import PathKind

COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
DATA_SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".parquet", ".arrow", ".txt", *COMPRESSED)

HANDED_OVER = "data/rows-*.parquet"
"""Rows from a cell, in the run's own folder: stored relative, so that the folder can be moved."""

CELL_ROWS_FILE = re.compile(r"rows-[0-9a-f]{16}\.parquet")
"""File of rows from a cell, named after their fingerprint."""

ONLINE, REMOTE = "ONLINE", "REMOTE:"
"""Values of `dataset_dir`: names are hub ids; `REMOTE:owner/name` has the file in a data set of the hub."""
MARKS = ("./", "../", "/", "~")


def is_there(path: Path) -> bool:
    """Whether a path exists on this machine.

    False where `Path.exists` raises: for a name that is too long and for a folder that the system denies.
    """
    try:
        return path.exists()
    except OSError:
        return False


def absolute(value: str, kind: PathKind, base: Path, *, file: bool) -> str:
    """Make a path absolute, since a run starts in another working directory.

    Names, hub ids and URLs are unchanged, so are `ONLINE` and `REMOTE:…` in place of a folder, and rows from a cell
    (`HANDED_OVER`) if the config is not a file.

    Args:
        kind: what the key may hold, see `option`.
        file: whether the config is a file in `base`.
    """
    if kind == "data" and fnmatch.fnmatch(value, HANDED_OVER):
        return str(base / value) if file else value
    if not value or "://" in value or not _is_path(value, kind, base):
        return value
    return str(_join(base, value))


def _is_path(value: str, kind: PathKind, base: Path) -> bool:
    if kind == "metrics":
        return is_in_file(value)
    if kind in {"folder", "file"}:
        return value != ONLINE and not value.startswith(REMOTE)
    if value in {".", ".."} or value.startswith(MARKS):
        return True
    if kind == "data":
        return value.endswith(DATA_SUFFIXES) or ("/" in value and is_there(_join(base, value)))
    return value.endswith(".gguf") or (value != EMBEDDED and is_there(_join(base, value)))


def expanded(value: str | Path) -> Path:
    """Expand `~`; a path with the home of an unknown user stays as it is."""
    path = Path(value)
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def _join(base: Path, value: str) -> Path:
    path = base / expanded(value)
    # `..` is taken out without following links, as a shell's `cd` does.
    parts: list[str] = []
    for part in path.parts:
        if part == "..":
            parts = parts[:-1] if len(parts) > 1 else parts
        else:
            parts.append(part)
    return Path(*parts)


USER = re.compile(r"^(//)?[^/?#@]*:[^/@]*@")
"""User name and password at the start of an address without a scheme."""


def without_secrets(address: str) -> str:
    """Remove user name, password, query and fragment from a URL: any of them may be secret.

    A name or path stays as it is unless it begins with a user name and password. `a URL` if it cannot be parsed.
    """
    if "://" not in address:
        return USER.sub("", address)
    try:
        parts = urlsplit(address)
        _ = parts.port  # no number where a password has a `/`, `?` or `#` that ends the part before it
    except ValueError:  # also `http://[::1`
        return "a URL"
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))
