from __future__ import annotations

from typing import TYPE_CHECKING, Any

import traitlets

from llf_core.data.align import format_of
from llf_core.data.precheck import FORMAT_KEYS
from llf_widgets.forms.dataset_columns import ROLES, DatasetColumns, find_columns
from llf_widgets.forms.form_widget import FormWidget

if TYPE_CHECKING:
    from collections.abc import Callable

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
