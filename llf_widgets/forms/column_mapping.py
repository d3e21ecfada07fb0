"""Mapping of data set columns to roles, suggested by name and corrected by the user."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import traitlets

from llf_core.data.align import format_of, formats, roles, wanted_kind
from llf_core.data.errors import OtherKindError
from llf_core.data.precheck import FORMAT_KEYS, quick_check
from llf_core.data.sources import DEMO_FILES
from llf_widgets.forms.section import FormWidget
from llf_widgets.forms.values import format_value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llf_core.config import RunConfig
    from llf_widgets.forms.state import FormState


class ColumnMapping(FormWidget):
    """The column mapping: a one-line summary that expands to three rows and a list for each role.

    Changes are a draft until Apply stores them in `dataset_format` and `dataset_columns`. If no format fits, it opens
    by itself with columns suggested by name.
    """

    _component = traitlets.Unicode("column_mapping").tag(sync=True)
    _expanded = traitlets.Bool(default_value=False).tag(sync=True)
    _view = traitlets.Dict().tag(sync=True)

    def __init__(self, state: FormState, on_change: Callable[[], None]) -> None:
        self._state = state
        self._on_change = on_change
        self._columns: DatasetColumns | None = None
        self._draft: tuple[str, dict[str, str]] = ("", {})
        super().__init__()
        self.on_msg(self._receive)

    def refresh(self) -> None:
        """Read the current data set; a draft for other columns is discarded."""
        config = self._state.report.config
        found = find_columns(config, (config.data.dataset or ()) if config else ())
        if found != self._columns:
            other = self._columns is None or found is None or found.dataset != self._columns.dataset
            self._columns = found
            if found is not None:
                format_name = found.mapping[0] if found.mapping else found.formats[0]
                self._draft = (format_name if format_name in found.formats else found.formats[0], {})
                self._draft = (self._draft[0], found.suggest(self._draft[0]))
                if other or found.mapping is not None:
                    self._expanded = found.mapping is None
        self._update_view()

    def _update_view(self) -> None:
        found = self._columns
        if found is None:
            self._view = {}
            return
        format_name, columns = self._draft
        missing = [_role_label(role, format_name) for role in found.missing_roles(format_name, columns)]
        now = (format_name, columns) == (found.mapping and (found.mapping[0], dict(found.mapping[1])))
        self._view = {
            "summary": _summary(found),
            "names": list(found.names),
            "rows": [list(row) for row in found.rows],
            "formats": [[one, format_of(one).label] for one in found.formats],
            "format": format_name,
            "roles": [
                [role, _role_label(role, format_name), needed, columns.get(role, "")]
                for role, needed in found.roles[format_name].items()
            ],
            "missing": missing,
            "applied": now,
            "configured": found.configured,
        }

    def _receive(self, _widget: object, content: dict[str, Any], _buffers: object) -> None:
        found, (format_name, columns) = self._columns, self._draft
        if found is None:
            return
        kind = content["type"]
        if kind == "format" and content["format"] in found.formats:
            self._draft = (content["format"], found.suggest(content["format"]))
        elif kind == "role" and content["role"] in found.roles[format_name]:
            others = {role: column for role, column in columns.items() if role != content["role"]}
            self._draft = (format_name, others | ({content["role"]: content["column"]} if content["column"] else {}))
        elif kind == "apply" and not found.missing_roles(format_name, columns):
            self._state.apply({"dataset_format": format_name, "dataset_columns": columns})
            self._on_change()
        elif kind == "reset":
            self._state.apply(dict.fromkeys(FORMAT_KEYS))
            self._on_change()
        self._update_view()


def _role_label(role: str, format_name: str) -> str:
    return "Text" if format_name == "text" else ROLES.get(role, role)


def _summary(found: DatasetColumns) -> str:
    if found.mapping is None:
        return "Choose the columns:"
    format_name, columns = found.mapping
    roles = ", ".join(f"{_role_label(role, format_name).lower()} from `{column}`" for role, column in columns.items())
    return f"Read as {format_name}: {roles}."


SAMPLE_ROWS, MAX_CELL_CHARACTERS = 3, 160
"""Number of displayed rows, and maximum characters per cell."""
ROLES = {
    "prompt": "Prompt",
    "query": "Query (appended to the prompt)",
    "response": "Response",
    "system": "System prompt",
    "history": "History",
    "tools": "Tools",
    "messages": "Messages",
    "chosen": "Chosen response",
    "rejected": "Rejected response",
    "kto_tag": "Label (good or bad)",
}
ROLE_HINTS = {
    "prompt": ("question", "prompt", "instruction", "ask", "user", "input", "frage", "query", "q"),
    "response": ("answer", "response", "output", "reply", "completion", "target", "assistant", "antwort", "a"),
    "messages": ("messages", "conversation", "chat", "dialog", "turns"),
    "chosen": ("chosen", "better", "good", "preferred", "winner", "accepted"),
    "rejected": ("rejected", "worse", "bad", "loser", "refused"),
    "kto_tag": ("label", "good", "rating", "verdict", "desirable", "thumb"),
}
"""Parts of column names that suggest a role, most likely first."""


@dataclass(frozen=True)
class DatasetColumns:
    """Columns of a data set as shown in the form.

    Attributes:
        formats: formats suitable for the stage, the current or suggested one first.
        mapping: current format and columns; None if no format fits.
        error: why the data set cannot be read; empty if it can.
    """

    dataset: str
    names: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    formats: tuple[str, ...]
    roles: Mapping[str, Mapping[str, bool]]
    mapping: tuple[str, Mapping[str, str]] | None
    configured: bool
    error: str

    def suggest(self, format_name: str) -> dict[str, str]:
        """Column by role: the current mapping if it is of this format; else suggestions by name for some roles."""
        if self.mapping is not None and self.mapping[0] == format_name:
            return dict(self.mapping[1])
        found: dict[str, str] = {}
        for role, needed in self.roles[format_name].items():
            column = _suggest_column(role, [name for name in self.names if name not in found.values()])
            if needed and column is not None:
                found[role] = column
        return found

    def missing_roles(self, format_name: str, columns: Mapping[str, str]) -> list[str]:
        """Roles of a format that need a column and have none."""
        return [role for role, needed in self.roles[format_name].items() if needed and role not in columns]


def find_columns(config: RunConfig | None, names: Sequence[str]) -> DatasetColumns | None:
    """Columns of the first data set whose columns can be mapped, unreadable ones first; None without one."""
    if config is None:
        return None
    kind = wanted_kind(config)
    seen = {name: quick_check(config, name, kind) for name in names if name not in DEMO_FILES}
    known = {name: check for name, check in seen.items() if check.rows and not check.entry}
    unreadable = [name for name, check in known.items() if check.error and not isinstance(check.error, OtherKindError)]
    name = next(iter([*unreadable, *known]), None)
    if name is None:
        return None
    check = known[name]
    reading = check.reading
    return DatasetColumns(
        dataset=name,
        names=check.columns,
        rows=tuple(tuple(_cell(row.get(column)) for column in check.columns) for row in check.rows[:SAMPLE_ROWS]),
        formats=formats(kind),
        roles={format_name: roles(format_name, kind) for format_name in formats(kind)},
        mapping=None if reading is None else (reading.format, reading.columns),
        configured=config.data.dataset_format is not None,
        error="" if check.error is None else check.error.message,
    )


def _suggest_column(role: str, names: Sequence[str]) -> str | None:
    for part in ROLE_HINTS.get(role, ()):
        for name in names:
            if name.lower() == part or (len(part) > 1 and part in name.lower()):
                return name
    return names[0] if role in {"prompt", "messages"} and len(names) == 1 else None


def _cell(value: object) -> str:
    text = format_value(value)
    return text if len(text) <= MAX_CELL_CHARACTERS else f"{text[: MAX_CELL_CHARACTERS - 1]}…"
