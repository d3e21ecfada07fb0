"""Gives memory that the allocator keeps back to the system."""

from __future__ import annotations

import ctypes
import sys


def release_free_memory() -> None:
    """Give freed memory back to the system: what a trainer's allocator keeps counts as resident, used or not.

    A trainer keeps freed memory for its next step (`launch.local_process.RUNTIME_VARIABLES`). That pays as long as the
    next allocations fit into what is free. They do not after a model was quantized, nor after the first step of a run
    (`training.freed_memory`). Only glibc has `malloc_trim`; with another C library this does nothing.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(ctypes.c_size_t(0))
