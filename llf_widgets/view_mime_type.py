"""MIME type by which the output of a cell names its LLF view."""

from __future__ import annotations

VIEW_MIME_TYPE = "application/vnd.llf.view+json"
"""Names a view to LLF's renderer in JupyterLab and Notebook: `{"view": "monitor", "run", "home", "state", "step"}`, or
`{"view": name}` of a view that only its kernel can show. The renderer prefers it to the widget, so that a notebook
which is opened without a kernel shows the bundle's `text/html` in the place of an error."""
