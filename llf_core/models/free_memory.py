from __future__ import annotations

import ctypes
import sys


def release_free_memory() -> None:
    """Give freed memory that glibc's allocator keeps back to the system.

    A trainer keeps it for its next step (`launch.local_process.RUNTIME_VARIABLES`). That does not pay after a
    quantization and after the first step (`training.callbacks`): later allocations do not fit into it.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(ctypes.c_size_t(0))
