"""A few real steps in a child process, which correct the forecast of the form."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.launch.local_process import computing_environment
from llf_core.runs.foreign_code import VARIABLE
from llf_core.runs.plain_text import without_escapes
from llf_widgets.forms.json_command import error_message, reason_of
from llf_widgets.temporary_folder import TemporaryFolder

if TYPE_CHECKING:
    from collections.abc import Callable

POLL_SECONDS = 0.2


class Measurement:
    """Runs `python -m llf_core.training.measure` and reports its progress; at most one at a time.

    Args:
        on_progress: called with a sentence, at first in the caller's thread.
        on_end: called in a thread with the last sentence.
    """

    def __init__(self, on_progress: Callable[[str], None], on_end: Callable[[str], None]) -> None:
        self._on_progress = on_progress
        self._on_end = on_end
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._cancelled = False

    @property
    def running(self) -> bool:
        """Whether a measurement is in progress."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, config: str) -> None:
        """Start a measurement in a thread, unless one is running."""
        if self.running:
            return
        self._cancelled = False
        self._on_progress("Measuring: starting…")
        self._thread = threading.Thread(target=self._run, args=(config,), daemon=True)
        self._thread.start()

    def cancel(self) -> None:
        """End the process without waiting for it; nothing of an unfinished measurement is kept."""
        self._cancelled = True
        if self._process is not None:
            self._process.terminate()

    def wait(self) -> None:
        """Wait until the process has ended and its result is shown, for tests and scripts."""
        if self._thread is not None:
            self._thread.join()

    def _run(self, config: str) -> None:
        try:
            told = self._measure(config)
        except Exception as error:  # noqa: BLE001 - whatever fails, the form must not wait for ever
            told = f"The measurement failed: {reason_of(error)}."
        self._on_end(told)

    def _measure(self, config: str) -> str:
        with TemporaryFolder("measure") as folder:
            file, out, err = (Path(folder) / name for name in ("config.yaml", "out.txt", "err.txt"))
            file.write_text(config, encoding="utf-8")
            command = [sys.executable, "-P", "-m", "llf_core.training.measure", str(file)]
            with out.open("wb") as stdout, err.open("wb") as stderr:
                self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and command
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    start_new_session=True,
                    # No code runs unasked; its own temporary folders are within this one, since it may be killed.
                    env=computing_environment(os.environ) | {VARIABLE: "", "TMPDIR": folder},
                )
                try:
                    self._follow(self._process, out)
                finally:
                    self._process.kill()  # no effect on one that has ended
                    self._process.wait()
            return self._result(self._process.returncode, _read(out), _read(err))

    def _follow(self, process: subprocess.Popen[bytes], out: Path) -> None:
        began = time.monotonic()
        while process.poll() is None:
            if self._cancelled:
                process.terminate()
            told = _last(_read(out)).get("phase", "starting")
            self._on_progress(f"Measuring: {told}… {time.monotonic() - began:.0f} s")
            time.sleep(POLL_SECONDS)

    def _result(self, code: int, out: str, err: str) -> str:
        if self._cancelled:
            return "Measurement cancelled."
        told = _last(out)
        if code or "seconds" not in told:
            return f"The measurement failed: {told.get('error') or error_message(err)}"
        return "Measured. The forecast is from these steps."


def _read(path: Path) -> str:
    return without_escapes(path.read_text("utf-8", "replace"))


def _last(out: str) -> dict[str, object]:
    """The last JSON object of the output; libraries may print other lines."""
    for line in reversed(out.splitlines()):
        if line.startswith("{"):
            try:
                found = json.loads(line)
            except ValueError:  # half a line
                continue
            if isinstance(found, dict):
                return found
    return {}
