from __future__ import annotations

import logging
import sys
from importlib.util import find_spec

NO_KERNEL = "Failed to load CPU gemm_4bit_forward"


def import_bitsandbytes() -> None:
    """Import bitsandbytes, where it is installed, as if the package `kernels` were not.

    With `kernels`, bitsandbytes 0.50 downloads compiled code on a CPU with AVX512-BF16, without the user's consent.
    Call this before PEFT and transformers import it.
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
    return not str(record.msg).startswith(NO_KERNEL)
