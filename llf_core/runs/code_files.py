"""Finds and reads Python files of models and run folders, with limits."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.untrusted import read_bytes
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

MAX_FILES, MAX_FOLDERS = 500, 5_000
MAX_BYTES = 4 << 20
"""Maximum size of a Python or JSON file of a model; code in larger files is never allowed."""


class TooMuchCodeError(UserError, ValueError):
    """A folder holds more code than a person could review."""


def python_files(folder: Path, exclude: Collection[Path] = ()) -> Iterator[Path]:
    """Find Python files in a folder and its subfolders. Links are followed, as Python does when it imports them.

    Raises:
        TooMuchCodeError: there are more than `MAX_FILES` files or `MAX_FOLDERS` folders.
    """
    found: list[Path] = []
    folders, seen = 0, set()
    for place, inner, names in os.walk(folder, followlinks=True):
        folders += 1
        real = os.path.realpath(place)
        inner[:] = sorted(name for name in inner if Path(place, name) not in exclude)
        if real in seen:  # a link to a parent folder
            inner.clear()
            continue
        seen.add(real)
        found += [Path(place, name) for name in sorted(names) if name.endswith(".py")]
        if folders > MAX_FOLDERS or len(found) > MAX_FILES:
            raise TooMuchCodeError(
                f"{folder} holds more than {MAX_FILES} Python files or {MAX_FOLDERS:,} folders. "
                "Expected the code of a single model."
            )
    yield from found


def read_code(path: Path) -> bytes:
    """Read a source file to hash or display it.

    Raises:
        TooMuchCodeError: it is not a readable regular file of at most `MAX_BYTES`, or is a link in a run folder.
    """
    run = _run_of(path)
    try:
        if run is not None:
            return read_bytes(path, MAX_BYTES, run)
        return read_bytes(Path(os.path.realpath(path)), MAX_BYTES)  # files in the hub cache are links
    except OSError:
        message = f"{path} is not a regular file of at most {MAX_BYTES:,} bytes, so it was not read as code."
        raise TooMuchCodeError(message) from None


def _run_of(path: Path) -> Path | None:
    """The run folder that contains a file. Its links are not followed: they could expose files of this machine."""
    inside = (one for one in path.parents if one.parent.name in {"runs", "bin"})
    return next((one for one in inside if os.path.lexists(one / "config.yaml")), None)
