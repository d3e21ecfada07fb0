"""Fault injection: kills the process at a named write, so that tests prove that no data is lost.

`LLF_FAULT=<point>:<n>` ends the process with SIGKILL the n-th time (from 1) it reaches `point`. A point is named after
the file and the operation, for example `status.written` (the new file exists under its temporary name) or
`complete.renamed`. `<point>:<n>@<program>` restricts it to processes of one program, for example `supervisor_process`.
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
    """Mark a point between two writes. Kills the process if `LLF_FAULT` names this point; only tests set it."""
    if point in _left:
        _left[point] -= 1
        if _left[point] <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
