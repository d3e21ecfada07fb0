"""What a trainer is at before it makes its first step, in a run's events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from llf_core.runs.writer import RunWriter

Phase = Literal["environment", "model", "data", "first step"]
PHASES: tuple[Phase, ...] = ("environment", "model", "data", "first step")


def begin_phase(writer: RunWriter, name: Phase, what: str = "") -> None:
    """Writes that a phase begins, which ends the one before.

    Args:
        writer: of the attempt.
        name: `environment`: the libraries are imported; `model`; `data`: the examples are prepared; `first step`: the
            optimizer is made, and the step.
        what: is done in it: `find` the model (download and convert it where it is not here yet), and later `load` it.
    """
    writer.event("phase", name=name, **({"what": what} if what else {}))
