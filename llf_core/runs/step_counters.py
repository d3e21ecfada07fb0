"""Counters that a checkpoint stores in addition to the Trainer's state."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.runs.control import check_changes
from llf_core.untrusted import HISTORY_BYTES, NotPlainError, UnreadableError, json_value, read_bytes
from llf_core.user_error import BAD_CONFIG, UserError

if TYPE_CHECKING:
    from collections.abc import Callable

COUNTERS = "llf_state.json"
WHAT_TO_DO = "Branch from another checkpoint, or start a new run."
MAX_COUNT = 2**53
"""Largest counter: up to it every integer is a float, too."""
MAX_THREADS, MAX_PARTS = 4096, 2**31
MAX_SHOWN = 80


class CountersError(UserError, ValueError):
    """The counters of a checkpoint are missing or invalid, so that a run cannot continue from it."""

    exit_code = BAD_CONFIG


def read_counters(checkpoint: Path) -> dict[str, Any]:
    """Read the counters of a checkpoint. Types and ranges are checked, since it may come from somebody else.

    Returns:
        `seen` (tokens processed and trained on), `threads`, `processes`; batch sizes after out-of-memory retries:
        `per_device_train_batch_size`, `gradient_accumulation_steps`, `eval_parts`; `held`, the active live changes;
        `stage`, the state of the stage; and `tensors`, the checksums of tensors by name. Each may be missing.

    Raises:
        CountersError: the file is missing or cannot be read, or a value is invalid.
    """
    name = f"{checkpoint.name}/{COUNTERS}"
    try:
        counters = json_value(read_bytes(checkpoint / COUNTERS, HISTORY_BYTES))
    except FileNotFoundError:
        raise CountersError(f"{name} is missing. Expected a checkpoint of LLF.", WHAT_TO_DO) from None
    except (UnreadableError, NotPlainError) as error:
        raise CountersError(f"{name} cannot be read: {str(error).rstrip('.')}.", WHAT_TO_DO) from None
    if not isinstance(counters, dict):
        raise CountersError(f"{name} is {_shown(counters)}. Expected a JSON object.", WHAT_TO_DO)
    for key, (is_valid, expected) in _CHECKS.items():
        if key in counters and not is_valid(counters[key]):
            shown = _shown(counters[key])
            raise CountersError(f"`{key}` in {name} is {shown}. Expected {expected}.", WHAT_TO_DO)
    return counters


def step_of(checkpoint: str | Path) -> int:
    """Step of a checkpoint folder `checkpoint-N`."""
    return int(Path(checkpoint).name.rpartition("-")[2])


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"


def _between(least: int, most: int) -> Callable[[object], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_seen(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_between(0, MAX_COUNT), value))  # noqa: PLR2004


def _are_changes(value: object) -> bool:
    """Whether these are live changes, of which several prompts may be watched."""
    if not isinstance(value, dict):
        return False
    prompts = value.get("watch", [])
    singles = [{name: one} for name, one in value.items() if name != "watch"]
    try:
        for change in (*singles, *({"watch": prompt} for prompt in (prompts if isinstance(prompts, list) else [None]))):
            check_changes(change)
    except ValueError:
        return False
    return True


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


_CHECKS: dict[str, tuple[Callable[[object], bool], str]] = {
    "seen": (_is_seen, "two integers of at least 0"),
    "threads": (_between(1, MAX_THREADS), f"an integer from 1 to {MAX_THREADS:,}"),
    "processes": (_between(1, MAX_PARTS), "an integer of at least 1"),
    "per_device_train_batch_size": (_between(1, MAX_PARTS), "an integer of at least 1"),
    "gradient_accumulation_steps": (_between(1, MAX_PARTS), "an integer of at least 1"),
    "eval_parts": (_between(1, MAX_PARTS), "an integer of at least 1"),
    "held": (_are_changes, "an object with changes of a live run"),
    "stage": (_is_object, "an object"),
    "tensors": (_is_object, "an object"),
}
