"""How a view ends: with all that it is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipywidgets import DOMWidget


def close_parts(view: DOMWidget) -> None:
    """Closes the children of a view, theirs, and each one's layout, which ipywidgets leaves open."""
    for part in getattr(view, "children", ()):
        close_parts(part)
        part.close()
    view.layout.close()
