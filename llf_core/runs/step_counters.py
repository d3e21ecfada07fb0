"""Counters that a checkpoint stores in addition to the Trainer's state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llf_core.untrusted import HISTORY_BYTES, NotPlainError, json_value, read_bytes

COUNTERS = "llf_state.json"


def read_counters(checkpoint: Path) -> dict[str, Any]:
    """Read the counters of a checkpoint, from which a resumed attempt continues.

    Returns:
        `seen` (tokens processed and trained on), `threads`; batch sizes after out-of-memory retries:
        `per_device_train_batch_size`, `gradient_accumulation_steps`, `eval_parts`; and `held`, the active live changes.

    Raises:
        FileNotFoundError: the checkpoint has none.
        UnreadableError: the file is not a regular file or too large, or the system denies access.
        NotPlainError: it is not a valid JSON object.
        OSError: too many files are open.
    """
    counters = json_value(read_bytes(checkpoint / COUNTERS, HISTORY_BYTES))
    if not isinstance(counters, dict):
        raise NotPlainError("it is not an object")
    return counters


def step_of(checkpoint: str | Path) -> int:
    """Step of a checkpoint folder `checkpoint-N`, as transformers names it, for callers that have only its path.

    Raises:
        ValueError: what follows the last `-` of the name is no integer.
    """
    return int(Path(checkpoint).name.rpartition("-")[2])
