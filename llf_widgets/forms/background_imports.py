"""What Start needs is imported while the form is being filled in, so that the click does not wait for it."""

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
    """Imports what Start needs in a thread of its own, once a process."""
    thread = threading.Thread(target=_import, name="llf-preload", daemon=True)
    thread.start()
    return thread


def _import() -> None:
    for name in MODULES:
        with contextlib.suppress(ImportError):  # the click needs it again, and says what is missing
            importlib.import_module(name)
