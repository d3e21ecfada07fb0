"""Ends a process of a run without the teardown of its modules, whose messages would hide the last lines of its log."""

from __future__ import annotations

import atexit
import ctypes
import logging
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable


def exit_with(main: Callable[[], int]) -> NoReturn:
    """Call `main` and end this process with the exit code that it returns, before the interpreter destroys modules.

    Triton's library is bound with nanobind, which then lists every function that is still referenced: "nanobind:
    leaked 513 functions!". Its switch, `nb::set_leak_warnings`, can be set in C++ only. Threads are joined and the
    functions of `atexit` are called as always, and both Python's and C's buffers are flushed.
    """
    codes: list[int] = []

    def leave() -> None:
        if codes:
            logging.shutdown()  # registered earlier, so it would come later
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):  # a full disk, a closed stream
                    stream.flush()
            ctypes.CDLL(None).fflush(None)
            os._exit(codes[0])

    atexit.register(leave)  # before all others, which come first then
    codes.append(main())
    sys.exit(codes[0])
