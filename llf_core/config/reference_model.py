from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llf_core.config.values import ConfigValues

REFERENCE = ("ref_model", "ref_model_adapters", "ref_model_quantization_bit")
"""Keys that name another reference model than the initial one."""


def names_reference(config: ConfigValues) -> bool:
    """Whether a config names another reference model than the initial one."""
    return any(config.get(key) is not None for key in REFERENCE)


def named_reference(config: ConfigValues) -> str | None:
    """`ref_model` if it names a model that is loaded beside the trained one; else None."""
    return "ref_model" if config.get("ref_model") else None


def precomputes_reference(config: ConfigValues, rows: int | None, processes: int = 1) -> bool:
    """Whether the reference's log-probabilities are computed before the first step, in a stage that `compares`.

    The trained model is the reference then, so that no copy of it is loaded. Without `precompute_ref_log_probs` they
    are where that takes no more work: if each example comes at least once.

    Args:
        rows: number of training examples; None if unknown.
    """
    asked, training = config.stage.precompute_ref_log_probs, config.training
    if asked is not None or config.data.streaming:
        return bool(asked) and not config.data.streaming
    if training.max_steps <= 0:
        return training.num_train_epochs >= 1
    step = training.per_device_train_batch_size * training.gradient_accumulation_steps * processes
    return rows is not None and training.max_steps * step >= rows
