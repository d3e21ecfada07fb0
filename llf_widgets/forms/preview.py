"""Data preview: counts, and three examples with trained tokens marked.

It needs a tokenizer, so it runs in a child process and can be cancelled.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import traitlets

from llf_core.launch.local_process import computing_environment
from llf_core.runs.duplicate_examples import duplicates_warning
from llf_core.runs.foreign_code import NOT_ALLOWED, VARIABLE
from llf_core.runs.plain_text import without_escapes
from llf_widgets.forms.form_widget import FormWidget
from llf_widgets.forms.messages import Message, messages_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_POLL_SECONDS = 0.25
_LISTED_RECORDS = 5
_COMMAND = "from llf_core.cli import main; main()"


class DataPreview(FormWidget):
    """The data preview button and its result, and a button for the token view.

    Args:
        config_yaml: returns the form's config as YAML, or None if it has errors.
        on_inspect: opens the token view.
    """

    _component = traitlets.Unicode("preview").tag(sync=True)
    _state = traitlets.Enum(["idle", "running", "done"], "idle").tag(sync=True)
    _note = traitlets.Unicode("").tag(sync=True)
    _messages: traitlets.List[dict[str, object]] = traitlets.List().tag(sync=True)
    _examples: traitlets.List[dict[str, object]] = traitlets.List().tag(sync=True)

    def __init__(self, config_yaml: Callable[[], str | None], on_inspect: Callable[[], object] = lambda: None) -> None:
        self._config_yaml = config_yaml
        self._on_inspect = on_inspect
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._cancelled = False
        super().__init__()
        self.on_msg(self._receive)

    def start(self) -> None:
        """Start the preview process, unless one is running.

        It is a process, because it loads a tokenizer, for which the kernel should not wait.
        """
        if self._state == "running":
            return
        config = self._valid_config()
        if config is None:
            return
        self._cancelled = False
        self._show("running", note="Starting…")
        self._thread = threading.Thread(target=self._run, args=(config,), daemon=True)
        self._thread.start()

    def inspect(self) -> None:
        """Open the token view, unless the form has errors."""
        if self._valid_config() is not None:
            self._on_inspect()

    def _valid_config(self) -> str | None:
        config = self._config_yaml()
        if config is None:
            self._show(
                "idle",
                messages=[Message("error", "Fix the errors in the form first.")],
            )
        return config

    def cancel(self) -> None:
        """End the process, for example if a large data set was chosen by mistake."""
        self._cancelled = True
        if self._process is not None:
            self._process.terminate()

    def wait(self) -> None:
        """Wait until the process has ended and its result is shown, for tests and scripts."""
        if self._thread is not None:
            self._thread.join()

    def _run(self, config: str) -> None:
        with tempfile.TemporaryDirectory(prefix="llf-preview-") as folder:
            file, out, err = (Path(folder) / name for name in ("config.yaml", "out.json", "err.txt"))
            file.write_text(config, encoding="utf-8")
            command = [sys.executable, "-P", "-c", _COMMAND, "inspect", str(file), "--json"]
            with out.open("wb") as stdout, err.open("wb") as stderr:
                self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and command
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    start_new_session=True,
                    env=computing_environment(os.environ) | {VARIABLE: ""},  # a look, which runs no code unasked
                )
                self._follow(self._process, (out, err))
            self._show_result(self._process.returncode, *(_read(path) for path in (out, err)))

    def _follow(self, process: subprocess.Popen[bytes], written: Sequence[Path]) -> None:
        began = time.monotonic()
        while process.poll() is None:
            message = last_message("".join(_read(path) for path in written))
            self._note = f"{message or 'Reading the tokenizer and the data…'} {time.monotonic() - began:.0f} s"
            if self._cancelled:
                process.terminate()
            time.sleep(_POLL_SECONDS)

    def _show_result(self, code: int, out: str, err: str) -> None:
        report = parse_report(out) if code == 0 else None
        if self._cancelled:
            self._show("idle", note="Cancelled.")
        elif report is not None:
            self._finish(report)
        else:
            advice = " Use “Inspect tokens” to review and allow it." if NOT_ALLOWED in err else ""
            self._show("idle", messages=[Message("error", error_message(err) + advice)])

    def _finish(self, report: Mapping[str, Any]) -> None:
        self._show("done", note=counts_text(report), messages=data_messages(report), examples=example_rows(report))

    def _show(
        self, state: str, *, note: str = "", messages: Sequence[Message] = (), examples: Sequence[Any] = ()
    ) -> None:
        with self.hold_sync():
            self._state = state
            self._note = note
            self._messages = messages_json(messages)
            self._examples = list(examples)

    def _receive(self, _widget: object, content: dict[str, Any], _buffers: object) -> None:
        handlers: dict[str, Callable[[], None]] = {
            "preview": self.start,
            "inspect": self.inspect,
            "cancel": self.cancel,
            "hide": lambda: self._show("idle"),
        }
        handlers[content["type"]]()


def _read(path: Path) -> str:
    return without_escapes(path.read_text("utf-8", "replace"))


def last_message(written: str) -> str:
    """The last line that a process wrote for people, e.g. about a download; progress bars and JSON are skipped."""
    lines = [line for line in written.splitlines() if line[:1].isupper() and "|" not in line]
    return lines[-1] if lines else ""


def parse_report(out: str) -> dict[str, Any] | None:
    """The JSON object at the end of a process's output. Libraries may print other lines before it.

    Returns:
        The report; None if there is no complete object.
    """
    start = 0 if out.startswith("{") else out.find("\n{") + 1
    try:
        value = json.loads(out[start:])
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def counts_text(report: Mapping[str, Any]) -> str:
    """One line with examples, packed rows, tokens and trained tokens.

    Raises:
        KeyError: the report lacks a count.
    """
    tokens, trained = report["tokens"], report["trained_tokens"]
    share = f" ({100 * trained / tokens:.0f} %)" if tokens else ""
    rows = ""
    if report.get("rows"):
        rows = f" in {report['rows']:,} rows that are {100 * report['packing_fill']:.0f} % full"
    return f"{report['examples']:,} examples{rows}, {tokens:,} tokens, {trained:,} of them in the loss{share}."


def example_rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The decoded examples of a report, so that a user sees what the loss is computed on.

    Returns:
        `{"title", "parts"}` each; a part is `[text, trained]`.

    Raises:
        KeyError: the report has no preview.
    """
    return [
        {
            "title": f"Example {shown['index'] + 1}",
            "parts": [[part["text"], part["trained"]] for part in shown["segments"]],
        }
        for shown in report["preview"]
    ]


def data_messages(report: Mapping[str, Any]) -> list[Message]:
    """A message for each kind of data loss, with the first affected records, so that a user can find them in the file.

    Raises:
        KeyError: the report lacks a list.
    """
    units = {one["dataset"]: one.get("unit", "record") for one in report.get("sets", ())}
    messages = []
    if cut := report["truncated"]:
        lost = sum(one["cut"] for one in cut)
        text = f"{len(cut):,} of {report['examples']:,} examples exceed cutoff_len: {lost:,} tokens are truncated."
        messages.append(Message("note", f"{text} {_first(cut, units)}"))
    if divided := report["divided"]:
        parts = sum(one["parts"] for one in divided)
        text = f"{_number(divided, 'record gives', 'records give')} {parts:,} examples."
        messages.append(Message("note", f"{text} {_first(divided, units)}"))
    if warning := duplicates_warning(report.get("repeated", 0), report["examples"]):
        messages.append(Message("warning", warning, (("Drop duplicates", {"drop_duplicates": True}),)))
    if dropped := report["dropped"]:
        text = f"{_number(dropped, 'example is', 'examples are')} dropped: {dropped[0]['reason']}."
        messages.append(Message("warning", f"{text.replace('..', '.')} {_first(dropped, units)}"))
    return messages


def _number(entries: Sequence[Any], one: str, several: str) -> str:
    return f"{len(entries):,} {one if len(entries) == 1 else several}"


def _first(entries: Sequence[Mapping[str, Any]], units: Mapping[str, str]) -> str:
    """Location of the first affected records, counted from 1: `Lines 8, 12 of rows.jsonl and 3 more.`."""
    dataset = entries[0]["dataset"]
    own = [one["index"] + 1 for one in entries if one["dataset"] == dataset][:_LISTED_RECORDS]
    unit = units.get(dataset, "record").capitalize()
    more = f" and {len(entries) - len(own):,} more" if len(entries) > len(own) else ""
    return f"{unit}{'s' if len(own) > 1 else ''} {', '.join(map(str, own))} of {dataset}{more}."


def error_message(errors: str) -> str:
    """The message of a failed process: its last `Error …` line on stderr, else its last line; no traceback."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    marked = [line.removeprefix("Error").strip() for line in lines if line.startswith("Error ")]
    if marked:
        return marked[-1]
    return lines[-1] if lines else "The process that reads the data exited without an error message. Try again."
