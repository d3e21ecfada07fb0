"""The live view of a run."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llf_widgets.monitor.static import summary_bundle
    from llf_widgets.monitor.widget import Monitor

# Loaded when used: the form follows other runs too, and opens without plotly.
_LAZY = {"Monitor": "llf_widgets.monitor.widget", "summary_bundle": "llf_widgets.monitor.static"}

__all__ = ["Monitor", "summary_bundle"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value
