"""Base classes of widgets: to receive every message, to be closed by hand only, to rewrite their saved outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import anywidget
import traitlets

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


UNFINISHED = "Not finished when this notebook was saved. Run the cell again."
"""Saved text of unfinished work, which ends with the kernel."""


def may_repeat(error: Exception, *, began: bool) -> bool:
    """Whether a view offers to repeat work that failed: unless an error before its start says what to change."""
    return began or not isinstance(error, ValueError | TypeError)


class SavedOutputs:
    """Rewrites the outputs of a view, so that a saved notebook shows its last state without a kernel.

    A subclass calls `_update_outputs` when the texts in its bundle have changed.
    """

    def __init__(self, *values: Any, **named: Any) -> None:
        self._displays: list[Any] = []
        self._changes = 0
        super().__init__(*values, **named)

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        raise NotImplementedError

    def _ipython_display_(self, **options: object) -> None:
        from IPython.display import display

        changes = self._changes
        data, about = self._repr_mimebundle_(**options)
        handle = display(data, metadata=about, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        self._displays.append(handle)
        if self._changes != changes:  # while it was shown
            self._update_outputs()

    def _update_outputs(self) -> None:
        """Rewrite all outputs that show the view; those of a closed view stay as they are."""
        self._changes += 1
        bundle = self._repr_mimebundle_
        if bundle is None or not self._displays:  # so ipywidgets marks a closed view
            return
        data, about = bundle()
        for handle in self._displays:
            handle.update(data, metadata=about, raw=True)


class SavedView(SavedOutputs, FrontEnd):
    """A front end that rewrites its outputs; a subclass adds its text to the bundle of `_repr_mimebundle_`."""

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return self.widget_mimebundle(**options)
