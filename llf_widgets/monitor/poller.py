from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MIN_INTERVAL, MAX_INTERVAL = 0.33, 5.0  # seconds between two looks
MAX_CPU_SHARE = 0.015  # of one core, at most: a poll that cost 30 ms is followed by 2 s of pause


class Poller:
    """Calls `poll` in a background thread until it returns None.

    A notebook would print a thread's output and tracebacks into the running cell, so an error is passed to `on_error`
    as a sentence, and polling continues. The pause after an expensive poll grows, up to `MAX_INTERVAL`, so that polling
    uses no more than `MAX_CPU_SHARE` of a core.

    Args:
        poll: does the work of one poll; returns the minimum seconds until the next one, or None to end.
        on_error: receives an error sentence, or an empty text after recovery.
    """

    def __init__(self, poll: Callable[[], float | None], on_error: Callable[[str], None], name: str) -> None:
        self._poll = poll
        self._on_error = on_error
        self._name = name
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._active = False
        self._running = False
        self._thread: threading.Thread | None = None

    @property
    def is_alive(self) -> bool:
        """Whether the thread polls, or will poll again."""
        return self._running

    def start(self) -> None:
        """Start the thread; if it is running, poll at once."""
        with self._lock:
            self._active = True
            self._wake.set()
            if not self._running:
                self._running = True
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """End the thread after the current poll, without waiting for it."""
        with self._lock:
            self._active = False
            self._wake.set()

    def join(self, timeout: float | None = None) -> bool:
        """Wait at most `timeout` seconds for the thread to end, unless called from it; return whether it has."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)
        return not self._running

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._active:
                    self._running = False
                    return
                self._wake.clear()
            before = time.thread_time()
            pause = self._poll_once()
            if pause is None:
                with self._lock:
                    self._active = self._active and self._wake.is_set()  # a start that came meanwhile counts
                continue
            cost = time.thread_time() - before
            self._wake.wait(min(MAX_INTERVAL, max(pause, MIN_INTERVAL, cost / MAX_CPU_SHARE)))

    def _poll_once(self) -> float | None:
        """One poll; an error becomes a sentence and a pause of one second."""
        try:
            pause = self._poll()
            self._on_error("")
        except Exception as error:  # noqa: BLE001 - whatever it was, the view says it and goes on
            return self._report(error)
        return pause

    def _report(self, error: Exception) -> float | None:
        try:
            self._on_error(
                f"This view could not read the run ({type(error).__name__}: {error}). "
                "The run is not affected. Retrying."
            )
        except Exception:  # noqa: BLE001 - the widget is gone, so nobody is left to be told
            return None
        return 1.0
