"""Files of Python code that come with a model or lie in a run's folder: found and read, within bounds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.door import read_bytes
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

MOST_FILES, MOST_FOLDERS = 500, 5_000
MOST_BYTES = 4 << 20
"""Python or JSON files of a model are far smaller; of a larger one nothing is allowed."""


class TooMuchCodeError(UserError, ValueError):
    """A folder holds more code than anybody could read."""


def python_files(folder: Path, but: Collection[Path] = ()) -> Iterator[Path]:
    """The Python files in a folder and below it, links followed.

    Args:
        folder: where to look.
        but: folders that are left out.

    Raises:
        TooMuchCodeError: there are more than anybody could read.
    """
    found: list[Path] = []
    folders, seen = 0, set()
    for place, inner, names in os.walk(folder, followlinks=True):
        folders += 1
        real = os.path.realpath(place)
        inner[:] = sorted(name for name in inner if Path(place, name) not in but)
        if real in seen:  # a link back up
            inner.clear()
            continue
        seen.add(real)
        found += [Path(place, name) for name in sorted(names) if name.endswith(".py")]
        if folders > MOST_FOLDERS or len(found) > MOST_FILES:
            raise TooMuchCodeError(
                f"{folder} holds more than {MOST_FILES} Python files or {MOST_FOLDERS:,} folders. "
                "Expected the code of one model."
            )
    yield from found


def read_code(path: Path) -> bytes:
    """What a file of code holds.

    Raises:
        TooMuchCodeError: it is no regular file, or larger than code is.
    """
    run = _run_of(path)
    try:
        if run is not None:
            return read_bytes(path, MOST_BYTES, run)
        return read_bytes(Path(os.path.realpath(path)), MOST_BYTES)  # a file of a hub's cache is a link
    except OSError:
        message = f"{path} is not a regular file of at most {MOST_BYTES:,} bytes, so it is not read as code."
        raise TooMuchCodeError(message) from None


def _run_of(path: Path) -> Path | None:
    """The run folder that a file lies in, of which no link is followed: it might show a file of this machine."""
    inside = (one for one in path.parents if one.parent.name in {"runs", "bin"})
    return next((one for one in inside if os.path.lexists(one / "config.yaml")), None)
