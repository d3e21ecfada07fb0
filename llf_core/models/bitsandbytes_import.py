"""Imports bitsandbytes without the native code that it would fetch from a hub."""

from __future__ import annotations

import logging
import sys
from importlib.util import find_spec

NO_KERNEL = "Failed to load CPU gemm_4bit_forward"


def import_bitsandbytes() -> None:
    """Imports bitsandbytes, where it is installed, as if the package `kernels` were not.

    With `kernels` installed, bitsandbytes 0.50 downloads compiled code when it is imported on a CPU with
    AVX512-BF16; nothing remote runs here unasked. Without it, it logs a warning that reads like an error, for a
    kernel that training does not use. PEFT and transformers import bitsandbytes by themselves: call this first.
    """
    if "bitsandbytes" in sys.modules or find_spec("bitsandbytes") is None:
        return
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    logger.addFilter(_is_news)
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "kernels"}
    sys.modules["kernels"] = None  # type: ignore[assignment]  # Python's way to make an import fail
    try:
        import bitsandbytes  # noqa: F401
    finally:
        del sys.modules["kernels"]
        sys.modules.update(hidden)


def _is_news(record: logging.LogRecord) -> bool:
    """False for the warning that the kernel is missing."""
    return not str(record.msg).startswith(NO_KERNEL)
