"""The `llf` command: one thin function per command, which calls the package that does the work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from llf_core.cli.application import app
    from llf_core.cli.entry import main

# Imported on first use: `llf models` answers before the command line is built.
_LAZY = {"app": ".application", "main": ".entry"}

__all__ = ["app", "main"]

__getattr__ = lazy_exports(__name__, _LAZY)
