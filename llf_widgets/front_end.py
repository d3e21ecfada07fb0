"""What the front ends of all views have in common."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import anywidget
import traitlets


class FrontEnd(anywidget.AnyWidget):
    """A widget that hears its kernel, however late the page has loaded its module.

    anywidget gives a module 2 s to load. Where that took longer, as it does beside a training that uses every core, no
    message of the kernel reaches the widget's model any more, and nothing says so. `hear` in `static/dom.js` puts that
    right; to find the model, it needs its id.
    """

    _own = traitlets.Unicode(help="The id of the widget's model").tag(sync=True)

    def __init__(self, **values: Any) -> None:
        own = uuid4().hex
        super().__init__(model_id=own, _own=own, **values)
