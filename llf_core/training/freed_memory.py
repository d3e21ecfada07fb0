"""Gives freed memory back to the system in the first steps of a run on a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers import TrainerCallback

from llf_core.models.free_memory import release_free_memory

if TYPE_CHECKING:
    from collections.abc import Container

    from transformers import TrainerControl, TrainerState, TrainingArguments

RELEASED_AFTER = (1, 2, 4, 8, 16)
"""Steps of a process after which memory is released. What is released costs time when the next step takes it again."""


class FreedMemory(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    """Releases memory that the first steps have freed, and that the later ones would not use again.

    Loading the model leaves gaps, and the first optimizer step puts its state between the gradients, which are then
    freed. The tensors of the next steps do not fit into all of the gaps. These would stay resident for the whole run:
    0.8 of 7.2 GB for GaLore at one billion parameters, 0.1 of 1.3 GB for LoRA on the embedded model.

    Args:
        after: numbers of the steps of this process after which memory is released.
    """

    def __init__(self, after: Container[int] = RELEASED_AFTER) -> None:
        self._steps = 0
        self._after = after

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Release the memory after the chosen steps; the gradients are freed by now.

        Args:
            args: the Trainer's arguments.
            state: the Trainer's state.
            control: the Trainer's control object.
        """
        del args, state, control
        self._steps += 1
        if self._steps in self._after:
            release_free_memory()
