"""What a checkpoint remembers beside the Trainer's own state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llf_core.door import HISTORY_BYTES, json_value, read_bytes

COUNTERS = "llf_state.json"


def read_counters(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint remembers beside the Trainer's own state.

    Returns:
        `seen` (tokens read and learned from), `threads`, what memory left of the config's batches:
        `per_device_train_batch_size`, `gradient_accumulation_steps`, `eval_parts`; and `held`, what the run was told
        to change.
    """
    counters: dict[str, Any] = json_value(read_bytes(checkpoint / COUNTERS, HISTORY_BYTES))
    return counters


def step_of(checkpoint: str | Path) -> int:
    """The step of a checkpoint's folder, `checkpoint-N`."""
    return int(Path(checkpoint).name.rpartition("-")[2])
