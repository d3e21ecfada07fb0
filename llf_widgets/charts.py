"""A Plotly figure whose complete state is one synced trait, so that reloaded pages show the current figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import traitlets

from llf_widgets.figures import packed, plotly_module
from llf_widgets.front_end import FrontEnd
from llf_widgets.static import text

if TYPE_CHECKING:
    from collections.abc import Callable


class Charts(FrontEnd):
    """One figure, drawn by plotly.js in the page.

    `plotly.graph_objects.FigureWidget` sends changes as messages between two copies of the figure; after a reload it
    waits for an answer of the previous page, and its curves stop updating. Here the kernel has the only copy.

    Args:
        label: description of the figure for screen readers.
        clicked: called with `{"trace", "x", "y"}` when a point is clicked.
    """

    _esm = "\n".join((plotly_module(), text("dom.js", "charts/chart.js", "charts/widget.js")))
    _css = text("llf.css")
    label = traitlets.Unicode("", help="What the figure shows").tag(sync=True)
    figure = traitlets.Dict(help="`data`, `layout` and `config`, as `figures.packed` makes them").tag(sync=True)

    def __init__(self, label: str, clicked: Callable[[dict[str, Any]], object] = lambda _: None) -> None:
        super().__init__(label=label)
        self._clicked = clicked
        self.on_msg(self._on_message)

    def show(self, figure: dict[str, Any]) -> None:
        """Replace the figure; the reader's zoom is kept.

        Args:
            figure: `data`, `layout` and optionally `config`; may contain numpy arrays.
        """
        self.figure = packed(figure)

    def _on_message(self, _widget: object, message: Any, _buffers: object) -> None:
        if isinstance(message, dict) and message.get("type") == "click":
            self._clicked({key: message.get(key) for key in ("trace", "x", "y")})
