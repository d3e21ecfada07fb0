"""Advice for warnings and findings, which depends on whether the run is live, and warnings that views share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.runs.formatting import rate
from llf_core.runs.states import FINAL

if TYPE_CHECKING:
    from collections.abc import Mapping

ENDED_STATES = frozenset({*FINAL, "lost"})
DUPLICATES_SHARE = 0.03


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


def duplicates_warning(copies: int, examples: int) -> str | None:
    """Warn about `copies` of earlier training examples, which the model memorizes (arXiv 2107.06499); None if few."""
    if copies <= DUPLICATES_SHARE * examples:
        return None
    duplicates = "is a duplicate of an earlier one" if copies == 1 else "are duplicates of earlier ones"
    return f"{copies:,} of the {examples:,} training examples {duplicates}, and each copy is trained on."
