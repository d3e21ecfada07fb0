"""Starts, supervises, stops and resumes trainer processes. Imports neither torch nor pandas."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from llf_core.launch.fetch_run import fetch
    from llf_core.launch.parameter_sweep import sweep
    from llf_core.launch.run import Run, attach
    from llf_core.launch.start import launch
    from llf_core.runs.listing import free_bytes
    from llf_core.runs.run_index import active_runs

# Loaded when used: the supervisor is a module of this package and forks before it imports anything.
_LAZY = {
    "Run": "llf_core.launch.run",
    "active_runs": "llf_core.runs.run_index",
    "attach": "llf_core.launch.run",
    "fetch": "llf_core.launch.fetch_run",
    "free_bytes": "llf_core.runs.listing",
    "launch": "llf_core.launch.start",
    "sweep": "llf_core.launch.parameter_sweep",
}

__all__ = ["Run", "active_runs", "attach", "fetch", "free_bytes", "launch", "sweep"]

__getattr__ = lazy_exports(__name__, _LAZY)
