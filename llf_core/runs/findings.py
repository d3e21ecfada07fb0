"""What is to be done about a finding, which depends on whether the run goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llf_core.runs.formatting import rate
from llf_core.runs.status import FINAL

if TYPE_CHECKING:
    from collections.abc import Mapping

OVER = frozenset({*FINAL, "lost"})
"""States in which nothing can be changed any more."""


def stands(event: Mapping[str, Any], state: str, step: int) -> bool:
    """Whether a warning or finding still says something about a run in this state, at this step.

    What is said of a step under way is over when that has ended, or the run has.
    """
    until = event.get("until")
    return not isinstance(until, int) or (state not in OVER and step < until)


def advice(event: Mapping[str, Any], state: str) -> str:
    """What to do: as the finding says while the run goes on, then only what the next run may have otherwise."""
    if state not in OVER:
        return str(event.get("fix") or "")
    config = event.get("config")
    changes = config.items() if isinstance(config, dict) else ()
    listed = ", ".join(f"{key} {_text(value)}" for key, value in changes)
    return f"For the next run: {listed}." if listed else ""


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return rate(value) if isinstance(value, float) else str(value)
