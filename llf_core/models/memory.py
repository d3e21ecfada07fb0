"""The memory that is free, that is in use, and errors that say it has run out."""

from __future__ import annotations

import ctypes
import errno
import resource
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def release_free_memory() -> None:
    """Give freed memory that glibc's allocator keeps back to the system.

    A trainer keeps it for its next step (`launch.local_process.RUNTIME_VARIABLES`). That does not pay after a
    quantization and after the first step (`training.callbacks`): later allocations do not fit into it.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(ctypes.c_size_t(0))


def memory_in_use(device: torch.device) -> int:
    """Memory of this process in bytes: peak allocated on CUDA, else its resident set (the peak of it without /proc)."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    try:
        with open("/proc/self/statm", "rb") as statm:  # noqa: PTH123 - read once a logged step
            return int(statm.read().split()[1]) * resource.getpagesize()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


# Messages of the allocators of the back ends. CUDA's own error is torch.OutOfMemoryError.
SIGNS = (
    "can't allocate memory",  # DefaultCPUAllocator on Linux and macOS
    "not enough memory",  # DefaultCPUAllocator on Windows
    "Cannot allocate memory",  # errno ENOMEM
    "std::bad_alloc",
    "out of memory",  # CUDA's driver, HIP, XPU, MPS
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be allocated, on any device.

    A `RuntimeError` of torch and an error of safetensors count by their message.
    """
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM  # a file that cannot be mapped
    plain = isinstance(error, RuntimeError) or type(error).__name__ == "SafetensorError"
    return plain and any(sign in str(error) for sign in SIGNS)
