"""A command of `llf` that prints JSON, run in a child process, so that the kernel loads neither model nor tokenizer."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.launch.local_process import computing_environment
from llf_core.runs.foreign_code import NOT_ALLOWED, VARIABLE
from llf_core.runs.formatting import without_escapes
from llf_widgets.temporary_folder import TemporaryFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.25
_TERM_SECONDS = 3.0
_COMMAND = "from llf_core.cli import main; main()"


@dataclass(frozen=True)
class CommandResult:
    """Result of a command: the JSON object that it printed, or a sentence why it failed."""

    report: dict[str, Any] | None = None
    error: str = ""
    cancelled: bool = False


class JsonCommand:
    """`llf NAME CONFIG --json` in a child process, followed by a thread once it is started.

    Args:
        name: the command, such as `inspect`.
        on_note: called four times a second with the last line that the command wrote for people, and the seconds.
        on_end: called once with the result, whatever fails. Both are called in the thread.
        waiting: the note until the command has written a line.
    """

    def __init__(
        self,
        name: str,
        config_yaml: str,
        *,
        on_note: Callable[[str], None],
        on_end: Callable[[CommandResult], None],
        waiting: str,
    ) -> None:
        self._name, self._config, self._waiting = name, config_yaml, waiting
        self._on_note, self._on_end = on_note, on_end
        self._cancelled = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"llf-{name}")

    def start(self) -> None:
        """Start it; separate from the constructor, so that the callbacks find the object assigned."""
        self._thread.start()

    def cancel(self) -> None:
        """End the process; `on_end` is called once it has ended."""
        self._cancelled.set()

    def wait(self) -> None:
        """Wait until the process has ended and `on_end` has returned, for tests and scripts."""
        self._thread.join()

    def _run(self) -> None:
        try:
            result = self._execute()
        except Exception as error:  # noqa: BLE001 - whatever fails, the form must not wait for ever
            result = CommandResult(error=f"The process could not be started: {reason_of(error)}.")
        self._on_end(result)

    def _execute(self) -> CommandResult:
        with TemporaryFolder(self._name) as folder:
            file, out, err = (Path(folder) / name for name in ("config.yaml", "out.json", "err.txt"))
            command = [sys.executable, "-P", "-c", _COMMAND, self._name, str(file), "--json"]
            file.write_text(self._config, encoding="utf-8")
            with out.open("wb") as stdout, err.open("wb") as stderr:
                process = subprocess.Popen(  # noqa: S603 - our own interpreter and command
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    start_new_session=True,
                    env=computing_environment(os.environ) | {VARIABLE: ""},  # a look, which runs no code unasked
                )
                try:
                    self._follow(process, (out, err))
                finally:
                    process.kill()  # no effect on one that has ended
                    process.wait()
            return self._result(process.returncode, *(_read(path) for path in (out, err)))

    def _follow(self, process: subprocess.Popen[bytes], written: Sequence[Path]) -> None:
        began = time.monotonic()
        while process.poll() is None:
            message = last_message("".join(_read(path) for path in written))
            self._on_note(f"{message or self._waiting} {time.monotonic() - began:.0f} s")
            if self._cancelled.wait(_POLL_SECONDS):
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_TERM_SECONDS)
                return

    def _result(self, code: int, out: str, err: str) -> CommandResult:
        if self._cancelled.is_set():
            return CommandResult(cancelled=True)
        report = parse_report(out) if code == 0 else None
        if report is not None:
            return CommandResult(report)
        advice = " Use “Inspect tokens” to review and allow it." if NOT_ALLOWED in err else ""
        return CommandResult(error=error_message(err) + advice)


def reason_of(error: Exception) -> str:
    """Why a process could not be run, as the end of a sentence; an unexpected error is logged."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, UnicodeEncodeError):
        return f"character {error.start + 1:,} of the config is a lone surrogate, which UTF-8 cannot hold"
    logger.error("A process of the form failed.", exc_info=error)
    return str(error).rstrip(".") or type(error).__name__


def _read(path: Path) -> str:
    return without_escapes(path.read_text("utf-8", "replace"))


def last_message(written: str) -> str:
    """The last line that a process wrote for people: capitalized and without `|`, unlike progress bars and JSON."""
    lines = [line for line in written.splitlines() if line[:1].isupper() and "|" not in line]
    return lines[-1] if lines else ""


def parse_report(out: str) -> dict[str, Any] | None:
    """The JSON object at the end of a process's output, after other lines of libraries; None if it is incomplete."""
    start = 0 if out.startswith("{") else out.find("\n{") + 1
    try:
        value = json.loads(out[start:])
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def error_message(errors: str) -> str:
    """The message of a failed process: the last `Error …` line on its stderr, else the last line."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    marked = [line.removeprefix("Error").strip() for line in lines if line.startswith("Error ")]
    if marked:
        return marked[-1]
    return lines[-1] if lines else "The process exited without an error message. Try again."
