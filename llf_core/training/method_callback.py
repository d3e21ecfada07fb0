"""Calls a method after each step, and keeps its state in checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from llf_core.training.checkpoint_check import as_damaged

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import TrainerControl, TrainerState, TrainingArguments

    from llf_core.methods.method import Method
    from llf_core.runs import Checkpoints

FILE = "method.safetensors"
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
        if self._resumed is not None and (self._resumed / FILE).is_file():
            with as_damaged(self._resumed, FILE):
                self._method.restore(load_file(self._resumed / FILE))

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
                self._checkpoints.path(state.global_step) / FILE,
            )
