"""The Jupyter server extension: reads runs and drops requests into them."""

from __future__ import annotations

from llf_widgets.server.routes import add_routes

__all__ = ["add_routes"]
