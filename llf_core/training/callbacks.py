"""Small callbacks: the method after each step, phases after the last one, freed memory, early stopping."""

from __future__ import annotations

from typing import TYPE_CHECKING

from safetensors.torch import load_file, save_file
from transformers import EarlyStoppingCallback, TrainerCallback

from llf_core.models.memory import release_free_memory
from llf_core.runs.phases import begin_phase
from llf_core.training.checkpoint_check import as_damaged, damaged_state, trainer_state

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import TrainerControl, TrainerState, TrainingArguments

    from llf_core.methods.method import Method
    from llf_core.runs import Checkpoints, RunWriter
    from llf_core.runs.phases import Phase

METHOD_FILE = "method.safetensors"
"""File of a checkpoint with the state of its method, if it has one."""


class MethodCallback(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    """Calls `Method.after_step`, and writes `Method.state` into each checkpoint before it counts as complete."""

    def __init__(self, method: Method, checkpoints: Checkpoints, resumed: Path | None = None) -> None:
        self._method = method
        self._checkpoints = checkpoints
        self._resumed = resumed

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Restore the method's state, if there is one, once the Trainer has loaded the checkpoint's weights."""
        del args, state, control
        if self._resumed is not None and (self._resumed / METHOD_FILE).is_file():
            with as_damaged(self._resumed, METHOD_FILE):
                self._method.restore(load_file(self._resumed / METHOD_FILE))

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Call the method after the weights have changed; the gradients, which AdaLoRA needs, are still there."""
        del args, control
        self._method.after_step(state.global_step + 1, state.max_steps)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Write the method's state, if it has one, as `method.safetensors`."""
        del args, control
        if found := self._method.state():
            save_file(
                {name: tensor.contiguous() for name, tensor in found.items()},
                self._checkpoints.path(state.global_step) / METHOD_FILE,
            )


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


class FreedMemory(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    """Releases memory that the first step has freed, and that later steps would not use again.

    Loading the model leaves gaps, and the first optimizer step puts its state between the gradients, which are then
    freed. The next steps' tensors do not fit into all gaps: 0.8 of 7.2 GB for GaLore at one billion parameters.
    Later steps leave no such gaps, and each release costs the next step 0.5 s (embedded model).
    """

    def __init__(self) -> None:
        self._is_first = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Release the memory after the first step of this process; the gradients are freed by now."""
        del args, state, control
        if self._is_first:
            self._is_first = False
            release_free_memory()


def early_stopping(patience: int, checkpoint: Path | None) -> EarlyStoppingCallback:
    """Create the Trainer's early stopping callback, with its patience counter restored on resume.

    The Trainer restores callbacks only by an option that would restore all of them. ModelError if the checkpoint's
    `trainer_state.json` is damaged.
    """
    callback = EarlyStoppingCallback(early_stopping_patience=patience)
    if checkpoint is not None:
        kept = trainer_state(checkpoint).stateful_callbacks
        try:
            attributes = kept.get("EarlyStoppingCallback", {}).get("attributes", {})
            callback.early_stopping_patience_counter = int(attributes.get("early_stopping_patience_counter", 0))
        except (AttributeError, TypeError, ValueError) as error:
            raise damaged_state(checkpoint, error) from error
    return callback
