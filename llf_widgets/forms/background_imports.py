from __future__ import annotations

import contextlib
import functools
import importlib
import threading

MODULES = (
    "llf_core.launch.start",
    "llf_core.rewards",
    "llf_core.rewards.stored_functions",
    "llf_widgets.monitor.widget",
)


@functools.cache
def preload() -> threading.Thread:
    """Import the modules for Start in a background thread, once per process, which takes seconds."""
    thread = threading.Thread(target=_import, name="llf-preload", daemon=True)
    thread.start()
    return thread


def _import() -> None:
    for name in MODULES:
        with contextlib.suppress(ImportError):  # the click needs it again, and says what is missing
            importlib.import_module(name)
