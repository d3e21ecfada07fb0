from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

INTERVAL = 0.05
"""Seconds between two messages to the page."""


class UpdateSender:
    """Calls `send`, which must not fail, soon after `notify`, at most once in `INTERVAL`, in a thread of its own."""

    def __init__(self, send: Callable[[], None]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._pending = self._running = False

    def notify(self) -> None:
        """Report that something is new; may be called often, and by any thread."""
        with self._lock:
            self._pending = True
            if self._running:
                return
            self._running = True
        threading.Thread(target=self._run, daemon=True, name="llf-chat-updates").start()

    def _run(self) -> None:
        while True:
            time.sleep(INTERVAL)
            with self._lock:
                if not self._pending:
                    self._running = False
                    return
                self._pending = False
            self._send()
