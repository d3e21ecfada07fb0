"""The column mapping below the data set: three rows, and a list of columns for each role."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import traitlets

from llf_core.data.align import format_of
from llf_core.data.kind_check import FORMAT_KEYS
from llf_widgets.forms.columns import ROLES, Columns, columns_of
from llf_widgets.forms.pane import FormPane

if TYPE_CHECKING:
    from collections.abc import Callable

    from llf_widgets.forms.state import FormState


class ColumnsPane(FormPane):
    """The column mapping: a one-line summary that expands to three rows and a list for each role.

    Changes are a draft until Apply stores them in `dataset_format` and `dataset_columns`. If no format fits, it opens
    by itself with columns proposed by name.

    Args:
        state: the form's values.
        on_change: called after the state has changed.
    """

    _pane = traitlets.Unicode("columns").tag(sync=True)
    _open = traitlets.Bool(default_value=False).tag(sync=True)
    _view = traitlets.Dict().tag(sync=True)

    def __init__(self, state: FormState, on_change: Callable[[], None]) -> None:
        self._state = state
        self._on_change = on_change
        self._columns: Columns | None = None
        self._draft: tuple[str, dict[str, str]] = ("", {})
        super().__init__()
        self.on_msg(self._receive)

    def refresh(self) -> None:
        """Read the current data set; a draft for other columns is discarded."""
        config = self._state.report.config
        found = columns_of(config, (config.data.dataset or ()) if config else ())
        if found != self._columns:
            other = self._columns is None or found is None or found.dataset != self._columns.dataset
            self._columns = found
            if found is not None:
                layout = found.read[0] if found.read else found.formats[0]
                self._draft = (layout if layout in found.formats else found.formats[0], {})
                self._draft = (self._draft[0], found.proposed(self._draft[0]))
                if other or found.read is not None:
                    self._open = found.read is None
        self._draw()

    def _draw(self) -> None:
        found = self._columns
        if found is None:
            self._view = {}
            return
        layout, columns = self._draft
        missing = [ROLES[role] for role in found.missing(layout, columns)]
        now = (layout, columns) == (found.read and (found.read[0], dict(found.read[1])))
        self._view = {
            "line": _line(found),
            "names": list(found.names),
            "rows": [list(row) for row in found.rows],
            "formats": [[one, format_of(one).label] for one in found.formats],
            "format": layout,
            "roles": [
                [role, _called(role, layout), needed, columns.get(role, "")]
                for role, needed in found.roles[layout].items()
            ],
            "missing": missing,
            "applied": now,
            "named": found.named,
        }

    def _receive(self, _widget: object, content: dict[str, Any], _buffers: object) -> None:
        found, (layout, columns) = self._columns, self._draft
        if found is None:
            return
        kind = content["type"]
        if kind == "format" and content["format"] in found.formats:
            self._draft = (content["format"], found.proposed(content["format"]))
        elif kind == "role" and content["role"] in found.roles[layout]:
            others = {role: column for role, column in columns.items() if role != content["role"]}
            self._draft = (layout, others | ({content["role"]: content["column"]} if content["column"] else {}))
        elif kind == "apply" and not found.missing(layout, columns):
            self._state.apply({"dataset_format": layout, "dataset_columns": columns})
            self._on_change()
        elif kind == "reset":
            self._state.apply(dict.fromkeys(FORMAT_KEYS))
            self._on_change()
        self._draw()


def _called(role: str, layout: str) -> str:
    return "Text" if layout == "text" else ROLES.get(role, role)


def _line(found: Columns) -> str:
    """One line about how the data set is read."""
    if found.read is None:
        return "Choose the columns:"
    layout, columns = found.read
    held = ", ".join(f"{_called(role, layout).lower()} from `{column}`" for role, column in columns.items())
    return f"Read as {layout}: {held}."
