"""Mapping of data set columns to roles, suggested by name and corrected by the user."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llf_core.data.align import formats, roles, wanted_kind
from llf_core.data.errors import OtherKindError
from llf_core.data.precheck import quick_check
from llf_core.data.sources import DEMO_FILES
from llf_widgets.forms.values import format_value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llf_core.config import RunConfig

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
