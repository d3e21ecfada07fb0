"""Plotly figures that can be streamed to for hours and still tell the truth after a page reload."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from llf_widgets.monitor.figure import annotations, contents
from llf_widgets.monitor.layout import x_range

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llf_widgets.monitor.curves import Curves


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


class LiveFigure(TrueFigure):
    """The charts of one run."""

    def show_curves(self, curves: Curves, total: int) -> None:
        """Brings every trace and label up to date in one message.

        Args:
            curves: what to draw.
            total: planned steps; the step axes follow it only when it changes, so a reader's zoom stays.
        """
        new = contents(curves)
        with self.batch_update():
            for trace, content, before in zip(self.data, new, self._sent or ({},) * len(new), strict=True):
                for name, value in content.items():
                    if not _same(before.get(name), value):
                        trace[name] = value
            for place, note in enumerate(annotations(curves)):
                if self.layout.annotations[place].text != note["text"]:
                    self.layout.annotations[place].text = note["text"]
            if self.layout.xaxis.showticklabels != (curves.points > 0):
                self.for_each_xaxis(lambda axis: axis.update(showticklabels=curves.points > 0))
                self.for_each_yaxis(lambda axis: axis.update(showticklabels=curves.points > 0))
            wanted = x_range(total)
            if wanted is not None and list(self.layout.xaxis.range or ()) != wanted and self._total != total:
                for axis in self.select_xaxes():
                    axis.range, axis.autorange = wanted, False
        self._sent, self._total = new, total

    _total = 0
    _sent: list[dict[str, Any]] | None = None  # what the front end has: only what differs is sent


def _same(before: Any, now: Any) -> bool:
    """Whether two values of a trace are equal, gaps (NaN) included."""
    if isinstance(before, np.ndarray) and isinstance(now, np.ndarray):
        both = before.dtype == now.dtype and before.shape == now.shape
        return both and np.array_equal(before, now, equal_nan=before.dtype.kind == "f")
    return type(before) is type(now) and before == now
