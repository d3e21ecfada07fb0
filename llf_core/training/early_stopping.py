"""Early stopping: the run ends where the evaluation has not improved for `early_stopping_steps` evaluations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers import EarlyStoppingCallback, TrainerState

if TYPE_CHECKING:
    from pathlib import Path


def early_stopping(patience: int, checkpoint: Path | None) -> EarlyStoppingCallback:
    """Make the Trainer's early stopping callback, with its patience counter restored on resume.

    Args:
        patience: evaluations without improvement after which the run ends.
        checkpoint: folder of the checkpoint that the run continues from; None for a run that starts.
    """
    callback = EarlyStoppingCallback(early_stopping_patience=patience)
    if checkpoint is not None:
        kept = TrainerState.load_from_json(str(checkpoint / "trainer_state.json")).stateful_callbacks
        attributes = kept.get("EarlyStoppingCallback", {}).get("attributes", {})
        callback.early_stopping_patience_counter = attributes.get("early_stopping_patience_counter", 0)
    return callback
