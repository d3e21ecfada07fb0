"""Gives memory back to the system once the optimizer has its state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from llf_core.models.free_memory import release_free_memory

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments


class FirstStepMemory(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    """Releases the memory that the first step of a process has freed, where weights of the model are trained.

    The first optimizer step puts its state between the gradients. Once these are freed, the gradients of the next step
    do not fit into all of the gaps, which would stay resident for the whole run: 0.8 GB of 7.2 GB for GaLore at one
    billion parameters.
    """

    def __init__(self) -> None:
        self._is_first = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Release the memory; the gradients are freed by now.

        Args:
            args: the Trainer's arguments.
            state: the Trainer's state.
            control: the Trainer's control object.
        """
        del args, state, control
        if self._is_first:
            self._is_first = False
            release_free_memory()
