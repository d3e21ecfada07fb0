"""Advice for warnings and findings, which depends on whether the run is live."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.runs.formatting import rate
from llf_core.runs.states import FINAL

if TYPE_CHECKING:
    from collections.abc import Mapping

ENDED_STATES = frozenset({*FINAL, "lost"})


def is_active(event: Mapping[str, object], state: str, step: int) -> bool:
    """Whether a warning or finding still applies: with `until`, only before that step of a run that has not ended."""
    until = event.get("until")
    return not isinstance(until, int) or (state not in ENDED_STATES and step < until)


def advice(event: Mapping[str, object], state: str) -> str:
    """What to do about a finding: as stated while the run is live, afterwards only changes for the next run."""
    if state not in ENDED_STATES:
        return str(event.get("fix") or "")
    config = event.get("config")
    changes = config.items() if isinstance(config, dict) else ()
    listed = ", ".join(f"{key}: {_text(value)}" for key, value in changes)
    return f"For the next run, set {listed}." if listed else ""


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return rate(value) if isinstance(value, float) else str(value)
