"""Closes a view with all its children."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipywidgets import DOMWidget


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
