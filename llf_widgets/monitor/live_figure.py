"""Plotly figures that can be streamed to for hours and still tell the truth after a page reload."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from llf_widgets.monitor.figure import annotations, contents, figure_json
from llf_widgets.monitor.layout import x_range

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

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
    """The charts of one run.

    Args:
        curves: what to draw at first.
        total: planned steps.
        clicked: called with the step of a point of the lead's line that is clicked.
    """

    def __init__(self, curves: Curves, total: int, clicked: Callable[[int], object] = lambda _: None) -> None:
        super().__init__(figure_json(curves, total))
        self._clicked = clicked
        self._drawn: tuple[Any, ...] = curves.shape
        self._listen()

    def show_curves(self, curves: Curves, total: int) -> None:
        """Brings every trace and label up to date in one message; another one where there are new lines to draw.

        Args:
            curves: what to draw.
            total: planned steps; the step axes follow it only when it changes, so a reader's zoom stays.
        """
        if curves.shape != self._drawn:
            self._draw_anew(curves, total)
        new = contents(curves)
        with self.batch_update():
            for trace, content, before in zip(self.data, new, self._sent or ({},) * len(new), strict=True):
                for name, value in content.items():
                    if not _same(before.get(name), value):
                        trace[name] = value
            self._annotate(annotations(curves))
            if self.layout.xaxis.showticklabels != (curves.points > 0):
                self.for_each_xaxis(lambda axis: axis.update(showticklabels=curves.points > 0))
                self.for_each_yaxis(lambda axis: axis.update(showticklabels=curves.points > 0))
            wanted = x_range(total)
            if wanted is not None and list(self.layout.xaxis.range or ()) != wanted and self._total != total:
                for axis in self.select_xaxes():
                    axis.range, axis.autorange = wanted, False
        self._sent, self._total = new, total

    def _draw_anew(self, curves: Curves, total: int) -> None:
        """Other lines have come, so there are other traces and charts."""
        drawn = figure_json(curves, total)
        with self.batch_update():
            self.data = []
            self.add_traces(drawn["data"])
            self.update_layout(drawn["layout"], overwrite=True)
        self._drawn, self._sent, self._noted = curves.shape, None, drawn["layout"]["annotations"]
        self._listen()

    def _annotate(self, notes: list[dict[str, Any]]) -> None:
        """Sends the words that differ from those that the front end has; all of them where there are more."""
        if len(notes) != len(self.layout.annotations):
            self.layout.annotations = notes
        else:
            before = self._noted or [{}] * len(notes)
            for place, (note, old) in enumerate(zip(notes, before, strict=True)):
                for key, value in note.items():
                    if old.get(key) != value:
                        self.layout.annotations[place][key] = value
        self._noted = notes

    def _listen(self) -> None:
        self.data[0].on_click(self._on_click)

    def _on_click(self, _trace: Any, points: Any, _selector: Any) -> None:
        if points.xs:
            self._clicked(int(points.xs[0]))

    _total = 0
    _sent: list[dict[str, Any]] | None = None  # what the front end has: only what differs is sent
    _noted: list[dict[str, Any]] | None = None


def _same(before: Any, now: Any) -> bool:
    """Whether two values of a trace are equal, gaps (NaN) included."""
    if isinstance(before, np.ndarray) and isinstance(now, np.ndarray):
        both = before.dtype == now.dtype and before.shape == now.shape
        return both and np.array_equal(before, now, equal_nan=before.dtype.kind == "f")
    return type(before) is type(now) and before == now
