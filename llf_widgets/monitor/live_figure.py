"""A Plotly figure that still tells the truth after a page reload."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

if TYPE_CHECKING:
    from collections.abc import Iterable


class TrueFigure(go.FigureWidget):
    """`plotly.graph_objects.FigureWidget` whose state always holds the newest data.

    Plotly sends updates as messages and leaves the synced `_widget_data` as it was at construction, so a reloaded page
    would show the curves of that moment.
    """

    def get_state(self, key: str | Iterable[str] | None = None, drop_defaults: bool = False) -> dict[str, Any]:
        """The widget's state for a front end; the whole state is brought up to date first."""
        if key is None and "_layout_obj" in self.__dict__:  # absent while __init__ opens the comm
            self._trait_values["_widget_data"] = deepcopy(self._data)
            self._trait_values["_widget_layout"] = deepcopy(self._layout_obj._props)  # noqa: SLF001 - no public door
        return super().get_state(key=key, drop_defaults=drop_defaults)
