"""Live view of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from llf_widgets.monitor.mime_bundle import summary_bundle
    from llf_widgets.monitor.widget import Monitor

# Loaded when used: the server makes parts of a monitor too, and needs no ipywidgets.
_LAZY = {"Monitor": "llf_widgets.monitor.widget", "summary_bundle": "llf_widgets.monitor.mime_bundle"}

__all__ = ["Monitor", "summary_bundle"]

__getattr__ = lazy_exports(__name__, _LAZY)
