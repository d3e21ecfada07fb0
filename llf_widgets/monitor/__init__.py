"""The live view of a run."""

from __future__ import annotations

from llf_widgets.monitor.static import summary_bundle
from llf_widgets.monitor.widget import Monitor

__all__ = ["Monitor", "summary_bundle"]
