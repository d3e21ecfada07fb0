"""Mapping of data set columns to roles: proposed, shown with the first rows, and corrected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llf_core.data.align import formats, roles, wanted_kind
from llf_core.data.errors import OtherKindError
from llf_core.data.precheck import quick_check
from llf_core.data.sources import DEMO_FILES
from llf_widgets.forms.values import show

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llf_core.config import RunConfig

SAMPLES, CELL = 3, 160
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
LIKELY = {
    "prompt": ("question", "prompt", "instruction", "ask", "user", "input", "frage", "query", "q"),
    "response": ("answer", "response", "output", "reply", "completion", "target", "assistant", "antwort", "a"),
    "messages": ("messages", "conversation", "chat", "dialog", "turns"),
    "chosen": ("chosen", "better", "good", "preferred", "winner", "accepted"),
    "rejected": ("rejected", "worse", "bad", "loser", "refused"),
    "kto_tag": ("label", "good", "rating", "verdict", "desirable", "thumb"),
}
"""Parts of column names that suggest a role, most likely first."""


@dataclass(frozen=True)
class Columns:
    """Columns of a data set as shown in the form.

    Attributes:
        dataset: the data set, as in `dataset`.
        names: column names.
        rows: the first rows, each cell as text.
        formats: formats suitable for the stage, the current or proposed one first.
        roles: for each format its roles, and whether each needs a column.
        read: current format and columns; None if no format fits.
        named: whether the config sets them.
        error: why the data set cannot be read; empty if it can.
    """

    dataset: str
    names: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    formats: tuple[str, ...]
    roles: Mapping[str, Mapping[str, bool]]
    read: tuple[str, Mapping[str, str]] | None
    named: bool
    error: str

    def proposed(self, layout: str) -> dict[str, str]:
        """Propose a column by name for each role of a format; roles without a likely column are omitted."""
        if self.read is not None and self.read[0] == layout:
            return dict(self.read[1])
        found: dict[str, str] = {}
        for role, needed in self.roles[layout].items():
            column = _likely(role, [name for name in self.names if name not in found.values()])
            if needed and column is not None:
                found[role] = column
        return found

    def missing(self, layout: str, columns: Mapping[str, str]) -> list[str]:
        """Roles of a format that need a column and have none.

        Args:
            layout: the format.
            columns: column by role.
        """
        return [role for role, needed in self.roles[layout].items() if needed and role not in columns]


def columns_of(config: RunConfig | None, names: Sequence[str]) -> Columns | None:
    """Columns of the first data set with configurable columns; unreadable ones take precedence.

    Args:
        config: the form's config, valid or not.
        names: its data sets.

    Returns:
        None if there is none: hub data sets, entries of `dataset_info.json`, and built-in sets are not configurable.
    """
    if config is None:
        return None
    kind = wanted_kind(config)
    seen = {name: quick_check(config, name, kind) for name in names if name not in DEMO_FILES}
    known = {name: one for name, one in seen.items() if one.rows and not one.entry}
    odd = [name for name, one in known.items() if one.error and not isinstance(one.error, OtherKindError)]
    name = next(iter([*odd, *known]), None)
    if name is None:
        return None
    one = known[name]
    reading = one.reading
    return Columns(
        dataset=name,
        names=one.columns,
        rows=tuple(tuple(_cell(row.get(column)) for column in one.columns) for row in one.rows[:SAMPLES]),
        formats=formats(kind),
        roles={layout: roles(layout, kind) for layout in formats(kind)},
        read=None if reading is None else (reading.format, reading.columns),
        named=config.data.dataset_format is not None,
        error="" if one.error is None else one.error.message,
    )


def _likely(role: str, names: Sequence[str]) -> str | None:
    for part in LIKELY.get(role, ()):
        for name in names:
            if name.lower() == part or (len(part) > 1 and part in name.lower()):
                return name
    return names[0] if role in {"prompt", "messages"} and len(names) == 1 else None


def _cell(value: object) -> str:
    text = show(value)
    return text if len(text) <= CELL else f"{text[: CELL - 1]}…"
