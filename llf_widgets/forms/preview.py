"""Data preview in a child process, which loads the tokenizer: counts, and three examples with trained tokens marked."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import traitlets

from llf_core.config.field_specs import fields
from llf_core.config.number_format import with_unit
from llf_core.runs.findings import duplicates_warning
from llf_widgets.forms.json_command import JsonCommand
from llf_widgets.forms.messages import Message, messages_json
from llf_widgets.forms.section import FormWidget

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llf_widgets.forms.json_command import CommandResult

_LISTED_RECORDS, _LISTED_REASONS = 5, 3
_SECTIONS = {"model", "data", "stage"}
"""Sections of the config on which a preview depends."""


class DataPreview(FormWidget):
    """The data preview button and its result, and a button that opens the token view (`on_inspect`)."""

    _component = traitlets.Unicode("preview").tag(sync=True)
    _state = traitlets.Enum(["idle", "running", "done"], "idle").tag(sync=True)
    _note = traitlets.Unicode("").tag(sync=True)
    _messages: traitlets.List[dict[str, object]] = traitlets.List().tag(sync=True)
    _examples: traitlets.List[dict[str, object]] = traitlets.List().tag(sync=True)

    def __init__(self, config_yaml: Callable[[], str | None], on_inspect: Callable[[], object] = lambda: None) -> None:
        self._config_yaml = config_yaml
        self._on_inspect = on_inspect
        self._process: JsonCommand | None = None
        self._request: object = None  # of the process whose result is awaited
        self._key = ""
        super().__init__()
        self.on_msg(self._receive)

    def refresh(self, values: Mapping[str, object]) -> None:
        """Hide the preview if the form's values, which may be invalid, have changed since."""
        key = _deciding_values(values)
        if key == self._key:
            return
        self._key, self._request = key, None
        self.cancel()
        if self._state != "idle" or self._messages:
            self._show("idle", note="The settings have changed." if self._state != "idle" else "")

    def start(self) -> None:
        """Start the preview process, unless one is running; a form with errors gets a message in its place."""
        if self._state == "running":
            return
        config = self._valid_config()
        if config is None:
            return
        request = self._request = object()
        self._show("running", note="Starting…")
        self._process = JsonCommand(
            "inspect",
            config,
            on_note=lambda text: self._tell(request, text),
            on_end=lambda result: self._show_result(request, result),
            waiting="Reading the tokenizer and the data…",
        )
        self._process.start()

    def inspect(self) -> None:
        """Open the token view; a form with errors gets a message in its place."""
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
        """End the process."""
        if self._process is not None:
            self._process.cancel()

    def wait(self) -> None:
        """Wait until the process has ended and its result is shown, for tests and scripts."""
        if self._process is not None:
            self._process.wait()

    def close(self) -> None:
        """End the process, and close the widget."""
        self.cancel()
        super().close()

    def _tell(self, request: object, text: str) -> None:
        if request is self._request:
            self._note = text

    def _show_result(self, request: object, result: CommandResult) -> None:
        if request is not self._request:
            return
        self._request = None
        if result.cancelled:
            self._show("idle", note="Cancelled.")
        elif result.report is not None:
            self._finish(result.report)
        else:
            self._show("idle", messages=[Message("error", result.error)])

    def _finish(self, report: Mapping[str, object]) -> None:
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


def _deciding_values(values: Mapping[str, object]) -> str:
    keys = (spec.key for spec in fields() if spec.section in _SECTIONS)
    return repr([(key, values[key]) for key in keys if key in values])


def counts_text(report: Mapping[str, Any]) -> str:
    """One line with examples, packed rows, tokens and trained tokens."""
    tokens, trained = report["tokens"], report["trained_tokens"]
    share = f" ({100 * trained / tokens:.0f} %)" if tokens else ""
    rows = ""
    if count := report.get("rows"):
        full = f"{'is' if count == 1 else 'are'} {100 * report['packing_fill']:.0f} % full"
        rows = f" in {with_unit(count, 'row')} that {full}"
    examples = with_unit(report["examples"], "example")
    return f"{examples}{rows}, {with_unit(tokens, 'token')}, {trained:,} of them in the loss{share}."


def example_rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The decoded examples of a report: `{"title", "parts"}` each; a part is `[text, trained]`."""
    return [
        {
            "title": f"Example {shown['index'] + 1}",
            "parts": [[part["text"], part["trained"]] for part in shown["segments"]],
        }
        for shown in report["preview"]
    ]


def data_messages(report: Mapping[str, Any]) -> list[Message]:
    """A message for each kind of data loss and each frequent reason for dropping, with the first affected records."""
    units = {one["dataset"]: one.get("unit", "record") for one in report.get("sets", ())}
    messages = []
    if cut := report["truncated"]:
        lost = sum(one["cut"] for one in cut)
        text = f"{len(cut):,} of {report['examples']:,} examples exceed cutoff_len: {lost:,} tokens are truncated."
        messages.append(Message("note", f"{text} {_first(cut, units)}"))
    if divided := report["divided"]:
        parts = sum(one["parts"] for one in divided)
        text = f"{_number(divided, 'record gives', 'records give')} {with_unit(parts, 'example')}."
        messages.append(Message("note", f"{text} {_first(divided, units)}"))
    if warning := duplicates_warning(report.get("repeated", 0), report["examples"]):
        messages.append(Message("warning", warning, (("Drop duplicates", {"drop_duplicates": True}),)))
    reasons = Counter(one["reason"] for one in report["dropped"])
    for reason, _ in reasons.most_common(_LISTED_REASONS):
        dropped = [one for one in report["dropped"] if one["reason"] == reason]
        text = f"{_number(dropped, 'example is', 'examples are')} dropped: {reason}."
        messages.append(Message("warning", f"{text.replace('..', '.')} {_first(dropped, units)}"))
    named = {reason for reason, _ in reasons.most_common(_LISTED_REASONS)}
    if others := [one for one in report["dropped"] if one["reason"] not in named]:
        text = f"{_number(others, 'example is', 'examples are')} dropped for other reasons."
        messages.append(Message("warning", f"{text} {_first(others, units)}"))
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
