from __future__ import annotations

VIEW_MIME_TYPE = "application/vnd.llf.view+json"
"""Type of `{"view": "monitor", "run", "home", "state", "step"}`, or `{"view": name}` of a view that needs its kernel.

LLF's renderer prefers it to the widget, so that a notebook without a kernel shows the bundle's `text/html`, not an
error.
"""
