"""Phases of a trainer before its first step and after its last one, as events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from llf_core.runs.writer import RunWriter

Phase = Literal["environment", "model", "data", "first step", "predictions"]
PHASES: tuple[Phase, ...] = ("environment", "model", "data", "first step", "predictions")


def begin_phase(writer: RunWriter, name: Phase, what: str = "") -> None:
    """Record the start of a phase, which ends the previous one: the monitor shows what a run without steps does.

    Args:
        writer: the attempt's writer.
        name: `environment`: imports; `model`; `data`: preparing examples; `first step`: creating the optimizer, and the
            step; `predictions`: the result answers the evaluation data.
        what: activity within the phase: `find` the model (download and convert it), later `load` it.

    Raises:
        OSError: the event cannot be written, as on a full disk, or `LLF_HOME_MODE` is not a mode.
    """
    writer.event("phase", name=name, **({"what": what} if what else {}))
