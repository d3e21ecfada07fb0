"""An export in a notebook: its progress, and the receipt as tables and as a summary for saved notebooks."""

from __future__ import annotations

import threading
from html import escape
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import traitlets

from llf_core.config.number_format import with_unit
from llf_core.export.exports import export
from llf_core.export.receipt import FailedReceiptError
from llf_core.export.request import ExportError
from llf_core.runs.foreign_code import UntrustedCodeError
from llf_core.runs.formatting import duration, fixed, number, size, strip_bidi, strip_bidi_nested
from llf_core.runs.jsonl import as_number
from llf_core.untrusted import visible
from llf_core.user_error import UserError
from llf_widgets.cell_output import plain_table
from llf_widgets.front_end import UNFINISHED, SavedView, may_repeat
from llf_widgets.home import allow_code
from llf_widgets.view_files import VIEW_MIME_TYPE, script, stylesheet, text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from llf_core.export import Export, Receipt

STOPPED = "Stopped. Nothing was written."


class _StoppedError(Exception):
    """The export was stopped in the view."""


CHECK_HEADS = ("Check", "Result", "Measured", "Limit")


class ExportView(SavedView):
    """Exports a model and shows the progress, then the receipt: what was measured of the written files.

    The model is loaded in a child process. Nothing is at the destination before the files were checked; *Stop* ends the
    process and removes what it has written. For arguments and an example see `llf.export`.
    """

    _esm = text(script("export"))
    _css = text(stylesheet("export"))
    _state = traitlets.Enum(["running", "done", "failed", "stopped"], "running").tag(sync=True)
    _title = traitlets.Unicode("", help="what is exported").tag(sync=True)
    _note = traitlets.Unicode("", help="what is done now, or why it ended").tag(sync=True)
    _repeatable = traitlets.Bool(default_value=True, help="whether to offer a repetition of it").tag(sync=True)
    _progress: traitlets.List[int] = traitlets.List(help="number of steps done, and of all").tag(sync=True)
    _folder = traitlets.Unicode("", help="where the finished export is").tag(sync=True)
    _url = traitlets.Unicode("", help="where it was pushed to").tag(sync=True)
    _receipt: traitlets.Dict[str, Any] = traitlets.Dict(help="see `receipt_json`; empty before").tag(sync=True)
    _code: traitlets.List[dict[str, Any]] = traitlets.List(help="what would run, and was not allowed").tag(sync=True)
    _check_heads = traitlets.List(list(CHECK_HEADS)).tag(sync=True)

    def __init__(self, target: Any, format: str, **options: Any) -> None:  # noqa: A002 - the user's word
        self._target, self._format, self._options = target, format, options
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._stop_wanted = False
        self._end_process: Callable[[], None] | None = None
        self._export: Export | None = None
        self._error: BaseException | None = None
        super().__init__(_title=strip_bidi(f"Export {_name(target)} as {format}"))
        self.on_msg(self._receive)
        self._start()

    def wait(self, timeout: float | None = None) -> Export:
        """Wait until the export has ended, at most `timeout` seconds.

        Raises:
            TimeoutError: the export has not ended after `timeout` seconds.
            ExportError: the export was stopped or its view closed, or as for `llf.export`, whose other errors are
                raised too.
        """
        if not self._done.wait(timeout):
            raise TimeoutError(f"The export has not ended after {timeout:g} s. {self._note}")
        if self._export is None:
            raise self._error or ExportError(self._note)
        return self._export

    @property
    def folder(self) -> Path:
        """Destination of the export; waits for its end."""
        return self.wait().folder

    @property
    def receipt(self) -> Receipt:
        """What was measured of the export; waits for its end."""
        return self.wait().receipt

    def stop(self) -> None:
        """End the export and remove what it has written; one that has finished stays."""
        with self._lock:
            self._stop_wanted = True
            end = self._end_process
        if end is not None:
            end()

    def close(self) -> None:
        """End the export if it has not finished, and close the view."""
        self.stop()
        super().close()

    # -- display -----------------------------------------------------------------------------------------
    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        data, metadata = self.widget_mimebundle(**options)
        note = UNFINISHED if self._state == "running" else self._note
        shown = (self._title, note, self._folder, self._receipt)
        texts = {"text/plain": summary_text(*shown), "text/html": summary_html(*shown)}
        return data | texts | {VIEW_MIME_TYPE: {"view": "export"}}, metadata

    # -- the export --------------------------------------------------------------------------------------
    def _start(self) -> None:
        self._stop_wanted, self._end_process = False, None
        self._export, self._error = None, None
        self._done.clear()
        with self.hold_sync():
            self._state, self._note, self._progress = "running", "Starting…", []
            self._folder, self._receipt, self._url = "", {}, ""
            self._code, self._repeatable = [], True
        threading.Thread(target=self._run, daemon=True, name="llf-export").start()

    def _run(self) -> None:
        told = self._options.get("progress")

        def on_progress(what: str, done: int, total: int) -> None:
            if self._stop_wanted:
                raise _StoppedError
            with self.hold_sync():
                self._note, self._progress = f"{what}…", [done, total] if total else []
            if told is not None:
                told(what, done, total)

        try:
            options = self._options | {"progress": on_progress, "on_start": self._on_start}
            made = export(self._target, self._format, **options)
        except _StoppedError:
            self._end("stopped", STOPPED)
        except Exception as error:  # noqa: BLE001 - shown in the view and raised by `wait`
            if self._stop_wanted and isinstance(error, ExportError) and isinstance(error.__cause__, RuntimeError):
                self._end("stopped", STOPPED)  # the process was ended
                return
            self._error = error
            self._repeatable = may_repeat(error, began=self._end_process is not None)
            if isinstance(error, UntrustedCodeError):
                self._code = error.shown
            receipt = receipt_json(error.receipt) if isinstance(error, FailedReceiptError) else {}
            self._end("failed", _sentence(error), receipt=receipt)
        else:
            self._export = made
            self._url = made.url
            self._end("done", "", str(made.folder), receipt_json(made.receipt))

    def _on_start(self, end: Callable[[], None]) -> None:
        with self._lock:
            if self._stop_wanted:
                raise _StoppedError
            self._end_process = end

    def _end(self, state: str, note: str, folder: str = "", receipt: dict[str, object] | None = None) -> None:
        with self.hold_sync():
            self._state, self._note, self._progress = state, strip_bidi(note), []
            self._folder, self._receipt = folder, receipt or {}
        try:
            self._update_outputs()
        finally:
            self._done.set()  # also if the view is closed meanwhile

    def _receive(self, _widget: object, content: object, _buffers: object) -> None:
        kind = content.get("type") if isinstance(content, dict) else None
        if kind == "stop":
            self.stop()
        elif kind == "again" and self._state in {"failed", "stopped"}:
            self._start()
        elif kind == "allow" and self._code and self._state != "running":
            if error := allow_code(self._code):
                self._note = error
            else:
                self._start()


def _name(target: object) -> str:
    found = str(getattr(target, "id", None) or getattr(target, "name", None) or target)
    return PurePath(found).name or found if PurePath(found).is_absolute() else found


def _sentence(error: Exception) -> str:
    expected = isinstance(error, UserError | OSError | ImportError | RuntimeError | ValueError | TypeError)
    return str(error) if expected and str(error) else f"The export failed: {type(error).__name__}: {error}".rstrip(": ")


MISSING = "-"


def _percent(value: float) -> str:
    return f"{fixed(100 * value, 1)} %"


COLUMNS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("bytes", "Size", lambda value: " ".join(size(value))),
    ("kl", "KL divergence, nats", number),
    ("perplexity", "Perplexity", number),
    ("changed_greedy", "Changed greedy tokens", _percent),
    ("tokens_per_second", "Tokens per second", number),
)
"""Columns of the table of quantizations: key in the receipt, heading, number format."""


def receipt_json(receipt: Receipt) -> dict[str, Any]:
    """A receipt as texts, for the page and for the static summary.

    Returns:
        `passed`, `summary` (a sentence), `checks` (`cells` for `CHECK_HEADS`, `passed`, `detail`), `heads` and `rows`
        (`cells`) of the table of quantizations, and `bars` of its chart (`name`, `bytes`, `kl` in nats; None for a
        number that is missing or not finite).
    """
    found: dict[str, object] = strip_bidi_nested(
        {
            "passed": receipt.passed,
            "summary": _summary(receipt),
            "checks": [
                {
                    "cells": [
                        one.name,
                        "passed" if one.passed else "failed",
                        one.measured_text,
                        MISSING if one.limit is None else one.limit_text,
                    ],
                    "passed": one.passed,
                    "detail": one.detail,
                }
                for one in receipt.checks
            ],
            "heads": ["Quantization", *(head for _, head, _ in COLUMNS)],
            "rows": [{"cells": [str(row.get("quantization", "")), *_cells(row)]} for row in receipt.table],
            "bars": [
                {"name": str(row.get("quantization", "")), "bytes": _finite(row, "bytes"), "kl": _finite(row, "kl")}
                for row in receipt.table
            ],
        }
    )
    return found


def _summary(receipt: Receipt) -> str:
    count = len(receipt.checks)
    failed = len(receipt.failed)
    checks = f"{failed} of {with_unit(count, 'check')} failed" if failed else f"{with_unit(count, 'check')} passed"
    files = f"{with_unit(len(receipt.files), 'file')}, {' '.join(size(receipt.bytes))}. " if receipt.files else ""
    by = sorted({one.by for one in receipt.checks if one.by})
    read = f" Read back by {'; '.join(by)}." if by else ""
    return f"{checks}. {files}{duration(receipt.seconds)} in total.{read}"


def _cells(row: Mapping[str, object]) -> list[str]:
    found = []
    for key, _, form in COLUMNS:
        value = as_number(row.get(key))
        found.append(MISSING if value is None else form(value))
    return found


def _finite(row: Mapping[str, object], key: str) -> float | None:
    value = as_number(row.get(key))
    return value if value is not None and abs(value) < float("inf") else None


def summary_text(title: str, note: str, folder: str, receipt: Mapping[str, Any]) -> str:
    """The receipt as plain text, for frontends without HTML.

    Args:
        note: the state as a sentence; empty once the export is finished.
        folder: the destination; empty if nothing was written.
        receipt: see `receipt_json`; empty without one.
    """
    lines = [f"{title}: {note}" if note else title, *([folder] if folder else [])]
    if receipt:
        lines += [receipt["summary"], *_columns([CHECK_HEADS, *(one["cells"] for one in receipt["checks"])])]
        if receipt["rows"]:
            lines += ["", *_columns([receipt["heads"], *(one["cells"] for one in receipt["rows"])])]
    return visible("\n".join(lines))


def summary_html(title: str, note: str, folder: str, receipt: Mapping[str, Any]) -> str:
    """The receipt as HTML without scripts, with all texts escaped; for the arguments see `summary_text`."""
    parts = [f"<p>{escape(f'{title}: {note}' if note else title)}</p>"]
    if folder:
        parts.append(f"<p><code>{escape(folder)}</code></p>")
    if receipt:
        parts.append(f"<p>{escape(receipt['summary'])}</p>")
        parts.append(plain_table(CHECK_HEADS, [one["cells"] for one in receipt["checks"]]))
        if receipt["rows"]:
            parts.append(plain_table(receipt["heads"], [one["cells"] for one in receipt["rows"]]))
    return strip_bidi("".join(parts))


def _columns(rows: Iterable[Sequence[str]]) -> list[str]:
    found = list(rows)
    widths = [max(len(cell) for cell in column) for column in zip(*found, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in found]
