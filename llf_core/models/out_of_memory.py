from __future__ import annotations

import errno

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
