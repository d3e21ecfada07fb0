"""Counters that a checkpoint stores in addition to the Trainer's state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llf_core.untrusted import HISTORY_BYTES, json_value, read_bytes

COUNTERS = "llf_state.json"


def read_counters(checkpoint: Path) -> dict[str, Any]:
    """Read the counters of a checkpoint.

    Returns:
        `seen` (tokens processed and trained on), `threads`; batch sizes after out-of-memory retries:
        `per_device_train_batch_size`, `gradient_accumulation_steps`, `eval_parts`; and `held`, the active live changes.
    """
    counters: dict[str, Any] = json_value(read_bytes(checkpoint / COUNTERS, HISTORY_BYTES))
    return counters


def step_of(checkpoint: str | Path) -> int:
    """Step of a checkpoint folder `checkpoint-N`."""
    return int(Path(checkpoint).name.rpartition("-")[2])
