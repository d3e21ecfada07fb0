"""Dies on purpose at a named write: how the tests prove that a kill between any two writes loses nothing.

`LLF_FAULT=<point>:<n>` ends the process with SIGKILL the n-th time (from 1) that it reaches `point`. A point
is named after the file and the moment, for example `status.written` (the new file is there, under its other
name) or `complete.renamed`. `<point>:<n>@<program>` means only the processes of that program, for example
`supervise`. Without the variable a point costs one look-up in an empty dict.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

_left: dict[str, int] = {}
if "LLF_FAULT" in os.environ:
    _where, _, _program = os.environ["LLF_FAULT"].partition("@")
    _point, _, _count = _where.partition(":")
    if _program in {"", Path(sys.argv[0]).stem}:
        _left[_point] = int(_count or 1)


def reach(point: str) -> None:
    """Marks a place between two writes; dies here where `LLF_FAULT` says so."""
    if point in _left:
        _left[point] -= 1
        if _left[point] <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
