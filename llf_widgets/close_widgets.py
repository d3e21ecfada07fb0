from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipywidgets import DOMWidget


class ClosedByHand:
    """A widget that only `close` closes.

    ipywidgets also closes what Python deletes, such as a widget whose constructor has failed: its `close` would find
    none of its attributes, and print a second error below the real one.
    """

    def __del__(self) -> None:
        """Close nothing."""


def close_descendants(view: DOMWidget) -> None:
    """Close all descendants of a view, their layouts and its own; ipywidgets closes only the widget itself."""
    for part in getattr(view, "children", ()):
        close_descendants(part)
        part.close()
    view.layout.close()
