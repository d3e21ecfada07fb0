"""What closes a view: only its `close`, with all its children."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipywidgets import DOMWidget


class ClosedByHand:
    """A widget that only `close` closes.

    ipywidgets keeps every widget until it is closed, and closes what Python deletes. That is then a widget whose
    constructor has failed: its `close` would find none of its attributes, and print a second error below the real one.
    """

    def __del__(self) -> None:
        """Close nothing."""


def close_descendants(view: DOMWidget) -> None:
    """Close all descendants of a view, their layouts and its own.

    ipywidgets closes only the widget itself, so the models of a closed view would stay in the kernel and in the page.

    Args:
        view: a widget with or without children; the caller closes it itself.
    """
    for part in getattr(view, "children", ()):
        close_descendants(part)
        part.close()
    view.layout.close()
