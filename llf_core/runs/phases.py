"""Phases of a trainer before its first step and after its last one, and progress of long operations, as events."""

from __future__ import annotations

import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.runs.writer import RunWriter

Phase = Literal["environment", "model", "data", "first step", "evaluation", "saving", "predictions"]
AFTER_LAST_STEP = "All steps are done. Evaluating or saving the result."
AFTER_TRAINING: Mapping[str, str] = MappingProxyType(
    {
        "evaluation": "Training is done. Evaluating the model.",
        "saving": "Training is done. Saving the result.",
        "predictions": "The result is saved. Answering the evaluation data.",
    }
)
INTERVAL_SECONDS = 2.0


def work_after_steps(state: str, step: int, total: int, phase: Mapping[str, object] | None) -> str:
    """Activity of a run whose steps are all done, as a sentence; empty before that, or after its end."""
    if state != "running":
        return ""
    if phase is not None and is_after_training(phase):
        return AFTER_TRAINING[str(phase["name"])]
    return AFTER_LAST_STEP if 0 < total <= step else ""


def is_after_training(phase: Mapping[str, object]) -> bool:
    """Whether a `phase` event is of a phase after the last step."""
    name = phase.get("name")
    return isinstance(name, str) and name in AFTER_TRAINING


def begin_phase(writer: RunWriter, name: Phase, what: str = "") -> None:
    """Record the start of a phase, which ends the previous one.

    Args:
        name: `environment`: imports; `model`; `data`: preparing examples; `first step`: creating the optimizer, and the
            step; `evaluation` and `saving` after the last step; `predictions`: the result answers the evaluation data.
        what: activity within the phase: `find` the model (download and convert it), later `load` it.
    """
    writer.event("phase", name=name, **({"what": what} if what else {}))


class ProgressEvents:
    """Writes a `progress` event every two seconds, and a last one when all items of a reported operation are completed.

    Args:
        writer: the attempt's writer; None disables events.
        of: total number of items; None if unknown, and then there is no last event.
        more: further fields of every event.
    """

    def __init__(self, writer: RunWriter | None, what: str, of: int | None = None, **more: object) -> None:
        self._writer, self._fields = writer, {"what": what, **more} | ({} if of is None else {"of": of})
        self.of = of
        self._next = time.monotonic() + INTERVAL_SECONDS
        self._has_written = False

    def __call__(self, rows: int, **more: object) -> bool:
        """Report the number of completed items. Returns True if an event was due."""
        now = time.monotonic()
        if now < self._next and not (self._has_written and rows == self.of):
            return False
        self._next, self._has_written = now + INTERVAL_SECONDS, rows != self.of
        if self._writer is not None:
            self._writer.event("progress", **self._fields, rows=rows, **more)
        return True
