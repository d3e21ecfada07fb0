"""Records what a trainer does after its last step: it evaluates the model, or saves the result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers import TrainerCallback

from llf_core.runs.phases import begin_phase

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from llf_core.runs import RunWriter
    from llf_core.runs.phases import Phase


class PhaseCallback(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    """Writes a `phase` event when an evaluation after the last step begins, and when it has ended."""

    def __init__(self, writer: RunWriter) -> None:
        """Create the callback."""
        self._writer = writer
        self._last: Phase | None = None

    def begin(self, name: Phase) -> None:
        """Record the start of a phase, unless it is the last one that was recorded here.

        Args:
            name: `evaluation` or `saving`.
        """
        if name != self._last:
            self._last = name
            begin_phase(self._writer, name)

    def on_prediction_step(
        self,
        args: TrainingArguments,  # noqa: ARG002 - of transformers
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        **_: object,
    ) -> None:
        """Record an evaluation that the Trainer itself makes after the last step, with its first batch."""
        if 0 < state.max_steps <= state.global_step:
            self.begin("evaluation")

    def on_evaluate(
        self,
        args: TrainingArguments,  # noqa: ARG002 - of transformers
        state: TrainerState,  # noqa: ARG002
        control: TrainerControl,  # noqa: ARG002
        **_: object,
    ) -> None:
        """Record that an evaluation after the last step has ended: what follows saves a checkpoint or the result."""
        if self._last == "evaluation":
            self.begin("saving")
