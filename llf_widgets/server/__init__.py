"""Jupyter server extension: reads runs and sends them requests."""

from __future__ import annotations

from llf_widgets.server.routes import add_routes

__all__ = ["add_routes"]
