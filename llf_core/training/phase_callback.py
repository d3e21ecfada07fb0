"""Records the phases after the last step: evaluation of the model, saving of the result."""

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
        self._writer = writer
        self._last: Phase | None = None

    def begin(self, name: Phase) -> None:
        """Record the start of a phase (`evaluation` or `saving`), unless it is the last recorded one."""
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
        """Record an evaluation by the Trainer itself after the last step, with its first batch."""
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
