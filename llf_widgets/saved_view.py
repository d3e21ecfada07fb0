"""Base classes of views whose saved text is updated."""

from __future__ import annotations

from typing import Any

from llf_widgets.front_end import FrontEnd

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
