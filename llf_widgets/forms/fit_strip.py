"""The forecast of a run in the form: memory, disk and time, changes that make it fit, and a measurement."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import traitlets

from llf_core.launch.local_process import computing_environment
from llf_core.runs.foreign_code import VARIABLE
from llf_core.runs.formatting import without_escapes
from llf_core.user_error import UserError
from llf_widgets.forms.json_command import error_message, reason_of
from llf_widgets.forms.section import FormWidget
from llf_widgets.temporary_folder import TemporaryFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llf_core.config import RunConfig
    from llf_core.estimate import FitCheck

INVALID = "Fix the errors in the form to see the forecast."


class FitStrip(FormWidget):
    """The forecast of the form's config, which is updated with each key press.

    Args:
        on_apply: called with the changes of a button, and to undo them.
        current: returns the values of the form by key, to undo a change.
    """

    _component = traitlets.Unicode("fit_strip").tag(sync=True)
    _fit = traitlets.Dict().tag(sync=True)
    _message = traitlets.Unicode("").tag(sync=True)
    _undo = traitlets.Unicode("").tag(sync=True)
    _ready = traitlets.Bool(default_value=False).tag(sync=True)
    _measuring = traitlets.Bool(default_value=False).tag(sync=True)
    _note = traitlets.Unicode("").tag(sync=True)

    def __init__(self, on_apply: Callable[[Mapping[str, Any]], None], current: Callable[[], Mapping[str, Any]]) -> None:
        self._on_apply = on_apply
        self._current = current
        self._config: RunConfig | None = None
        self._found: FitCheck | None = None
        self._before: dict[str, Any] = {}
        self._measurement = Measurement(self._tell, self._measured)
        super().__init__()
        self.on_msg(self._receive)

    def show(self, config: RunConfig | None, *, has_model: bool = True) -> None:
        """Show the forecast of a config; a sentence for None (a config with errors) or a file that cannot be read."""
        self._config = config if has_model else None
        self._found, message = _forecast(config)
        if not has_model:
            self._found, message = None, message or INVALID
        with self.hold_sync():
            self._message = message
            self._fit = {} if self._found is None else self._found.json()
            self._ready = self._found is not None

    def refresh(self) -> None:
        """Make the forecast of the same config again, with what was measured on this machine since."""
        self.show(self._config)

    def apply(self, index: int) -> None:
        """Apply the change of this index that makes the run fit, and offer to undo it; unknown ones are ignored."""
        if self._found is None or index >= len(self._found.changes):
            return  # clicked while the form was changing
        change = self._found.changes[index]
        values = self._current()
        self._before = {key: values.get(key) for key in change.changes}
        self._undo = f"Undo “{change.label}”"
        self._on_apply(change.changes)

    def undo(self) -> None:
        """Restore the values that the last applied change replaced; other edits since then stay."""
        before, self._before = self._before, {}
        self._undo = ""
        if before:
            self._on_apply(before)

    def measure(self) -> None:
        """Make a few steps of the shown config in a child process, and correct the forecast by them."""
        if self._config is None or self._measurement.running:
            return
        config = self._config.yaml()
        self._measuring = True
        self._measurement.start(config)

    def cancel(self) -> None:
        """End the measurement, since the run needs the device."""
        self._measurement.cancel()

    def wait(self) -> None:
        """Wait until the measurement has ended, for tests and scripts."""
        self._measurement.wait()

    def close(self) -> None:
        """End the measurement, and close the widget."""
        self._measurement.cancel()
        super().close()

    def _tell(self, note: str) -> None:
        self._note = note

    def _measured(self, note: str) -> None:
        self.refresh()
        with self.hold_sync():
            self._measuring = False
            self._note = note

    def _receive(self, _widget: object, content: dict[str, Any], _buffers: object) -> None:
        handlers: dict[str, Callable[[], None]] = {
            "undo": self.undo,
            "measure": self.measure,
            "cancel": self.cancel,
            "apply": lambda: self.apply(content["index"]),
        }
        handlers[content["type"]]()


def _forecast(config: RunConfig | None) -> tuple[FitCheck | None, str]:
    """The forecast of a config, or the sentence that is shown without one."""
    from llf_core.data.text_lengths import estimate

    if config is None:
        return None, INVALID
    try:
        return estimate(config), ""
    except UserError as error:
        return None, f"{error.message} {error.what_to_do}".strip()
    except (OSError, ValueError) as error:
        return None, f"No forecast: {error}"


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
