"""Base class of all front ends."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import anywidget
import traitlets


class FrontEnd(anywidget.AnyWidget):
    """A widget that receives kernel messages however late the page has loaded its module.

    anywidget waits 2 s for a module. If loading takes longer (on a machine busy with training), the widget's model
    never receives messages, without an error. `hear` in `labextension/widgets/shared/initialize.js` works
    around this; it needs the model's id.
    """

    _own = traitlets.Unicode(help="The id of the widget's model").tag(sync=True)

    def __init__(self, **values: Any) -> None:
        own = uuid4().hex
        super().__init__(model_id=own, _own=own, **values)
