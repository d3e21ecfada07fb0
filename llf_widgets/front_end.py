from __future__ import annotations

from typing import Any
from uuid import uuid4

import anywidget
import traitlets

from llf_widgets.close_widgets import ClosedByHand


class FrontEnd(ClosedByHand, anywidget.AnyWidget):
    """A widget that receives kernel messages however late the page has loaded its module.

    anywidget waits 2 s for a module. If loading takes longer (on a machine busy with training), the widget's model
    never receives messages, without an error. `listenToKernel` in `labextension/widgets/shared/initialize.js` connects
    it again, with the id of the widget's comm in the trait `_comm_id`.

    A message of the page is handled on the subshell that the page names. Since version 7.4, ipykernel sends it to the
    subshell from which the widget sent its last message instead. If that subshell is gone, the message is lost; if it
    is the main shell, the message waits for the running cell. `open` switches this off for the widget's comm.
    """

    _comm_id = traitlets.Unicode(help="The id of the widget's model").tag(sync=True)

    def __init__(self, **values: Any) -> None:
        own = uuid4().hex
        super().__init__(model_id=own, _comm_id=own, **values)

    def open(self) -> None:
        """Open the comm to the page; ipywidgets calls it when the widget is created."""
        super().open()
        if hasattr(self.comm, "_reply_subshell_for"):
            self.comm._reply_subshell_for = _named_subshell  # noqa: SLF001 - there is no public switch

    def widget_mimebundle(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """MIME bundle of anywidget: data and metadata by MIME type, both empty for a widget without a front end."""
        found: tuple[dict[str, Any], dict[str, Any]] | None = super()._repr_mimebundle_(**options)
        return ({}, {}) if found is None else found


def _named_subshell(_data: object, named: str | None) -> str | None:
    """The subshell that the sender of a message named; None for the main shell."""
    return named
