"""The child process that prepares the data and answers requests about it."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.launch.local_process import computing_environment
from llf_core.runs.foreign_code import VARIABLE
from llf_core.runs.formatting import without_escapes
from llf_core.runs.jsonl import encode
from llf_widgets.temporary_folder import TemporaryFolder

if TYPE_CHECKING:
    from collections.abc import Callable

# -P: no module that lies beside the notebook.
COMMAND = ("-P", "-m", "llf_core.data.inspect")


class ProcessExitedError(RuntimeError):
    """The process has exited; the message has the reason."""


class DataProcess:
    """A running `python -m llf_core.data.inspect`, which ends with the kernel.

    Args:
        on_readings: called with the format and columns of each data set. All callbacks run in a background thread.
        on_progress: called with a data set's name and the number of prepared rows.
        on_end: called with the reason if the process ends before it was closed.

    Attributes:
        code: code that is not allowed, if that is why the process ended; see
            `llf_core.runs.foreign_code.ForeignCode.json`.
    """

    def __init__(
        self,
        config_yaml: str,
        on_readings: Callable[[dict[str, Any]], None],
        on_progress: Callable[[str, int], None],
        on_ready: Callable[[dict[str, Any]], None],
        on_end: Callable[[str], None],
    ) -> None:
        self._folder = TemporaryFolder("inspect")
        self._callbacks = (on_readings, on_progress, on_ready, on_end)
        self._pending: dict[int, Future[Any]] = {}
        self._request_ids = itertools.count(1)
        self._lock = threading.Lock()
        self._closed = False
        self._reason = ""
        self.code: list[dict[str, Any]] = []
        config = Path(self._folder.name) / "config.yaml"
        config.write_text(config_yaml, encoding="utf-8")
        self._errors = Path(self._folder.name) / "err.txt"
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and command
                [sys.executable, *COMMAND, str(config)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
                env=computing_environment(os.environ) | {VARIABLE: ""},
            )
        self._thread = threading.Thread(target=self._listen, daemon=True, name="llf-inspect")

    def start(self) -> None:
        """Start calling the callbacks; separate from the constructor, so that they find the object assigned."""
        self._thread.start()

    @property
    def pid(self) -> int:
        """Id of the process."""
        return self._process.pid

    def request(self, name: str, **arguments: Any) -> Future[Any]:
        """Send a request, whose answer arrives in another thread.

        The future fails with `ProcessExitedError` if the process has exited, and with `ValueError` if it refuses.
        """
        future: Future[Any] = Future()
        request_id = next(self._request_ids)
        line = encode({"id": request_id, "ask": name, **arguments})
        with self._lock:
            self._pending[request_id] = future
        try:
            assert self._process.stdin is not None  # noqa: S101 - opened above
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except (OSError, ValueError):
            with self._lock:
                waiting = self._pending.pop(request_id, None)
            if waiting is not None:  # else the end of the process was told to it already
                future.set_exception(
                    ProcessExitedError(self._reason or "The process that reads the data has exited. Inspect again.")
                )
        return future

    def close(self) -> None:
        """End the process; returns after at most 5 s."""
        self._closed = True
        self._process.terminate()
        self._thread.join(timeout=5)

    def _listen(self) -> None:
        on_readings, on_progress, on_ready, on_end = self._callbacks
        assert self._process.stdout is not None  # noqa: S101 - opened above
        for line in self._process.stdout:
            message = _object(line)
            if message is None:
                continue
            if "readings" in message:
                on_readings(message)
            elif "progress" in message:
                on_progress(message["progress"], message["rows"])
            elif "ready" in message:
                on_ready(message["ready"])
            elif "id" in message:
                self._resolve(message)
            elif "error" in message:
                self._reason, self.code = message["error"], message.get("code", [])
        code = self._process.wait()
        self._reason = self._reason or self._exit_message(code)
        self._folder.cleanup()
        with self._lock:
            pending, self._pending = self._pending, {}
        for future in pending.values():
            future.set_exception(ProcessExitedError(self._reason))
        if not self._closed:
            on_end(self._reason)

    def _resolve(self, message: dict[str, Any]) -> None:
        with self._lock:
            future = self._pending.pop(message["id"], None)
        if future is None:
            return
        if "error" in message:
            future.set_exception(ValueError(message["error"]))
        else:
            future.set_result(message["answer"])

    def _exit_message(self, code: int) -> str:
        lines = without_escapes(self._errors.read_text("utf-8", "replace")).strip().splitlines()
        last = lines[-1] if lines else "no error output"
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"The process that reads the data exited ({how}): {last}"


def _object(line: bytes) -> dict[str, Any] | None:
    """A JSON object in a line of the process; None if it was killed within the line."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
