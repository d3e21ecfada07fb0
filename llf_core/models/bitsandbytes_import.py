"""Imports bitsandbytes without the native code that it would download from a hub."""

from __future__ import annotations

import logging
import sys
from importlib.util import find_spec

NO_KERNEL = "Failed to load CPU gemm_4bit_forward"


def import_bitsandbytes() -> None:
    """Import bitsandbytes, where it is installed, as if the package `kernels` were not.

    With `kernels` installed, bitsandbytes 0.50 downloads compiled code when it is imported on a CPU with AVX512-BF16.
    Code from the network does not run without the user's consent. Without `kernels`, bitsandbytes logs a warning that
    looks like an error, about a kernel that training does not use; a filter of its logger drops it. PEFT and
    transformers import bitsandbytes themselves, so call this function first. An error of a damaged installation passes
    through.
    """
    if "bitsandbytes" in sys.modules or find_spec("bitsandbytes") is None:
        return
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    logger.addFilter(_is_relevant)
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "kernels"}
    sys.modules["kernels"] = None  # type: ignore[assignment]  # Python's way to make an import fail
    try:
        import bitsandbytes  # noqa: F401
    finally:
        del sys.modules["kernels"]
        sys.modules.update(hidden)


def _is_relevant(record: logging.LogRecord) -> bool:
    """Logging filter that drops the warning about the missing kernel."""
    return not str(record.msg).startswith(NO_KERNEL)
