"""Gives freed memory back to the system after the first step of a run on a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers import TrainerCallback

from llf_core.models.free_memory import release_free_memory

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments


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
