"""Early stopping: the run ends once the evaluation has not improved for `early_stopping_steps` evaluations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers import EarlyStoppingCallback

from llf_core.training.checkpoint_check import damaged_state, trainer_state

if TYPE_CHECKING:
    from pathlib import Path


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
