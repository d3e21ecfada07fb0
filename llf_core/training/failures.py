"""Converts a trainer's errors to a message with cause and fix."""

from __future__ import annotations

from dataclasses import dataclass
from pickle import UnpicklingError
from typing import TYPE_CHECKING

from llf_core.config.registry import method_of, stage_of
from llf_core.models.errors import first_line
from llf_core.models.memory import is_out_of_memory
from llf_core.redaction import redact
from llf_core.runs.disk_errors import failure_message, is_disk_error, remove_partial_files
from llf_core.user_error import FAILED, UserError

if TYPE_CHECKING:
    from llf_core.config import RunConfig
    from llf_core.runs import RunFolder


@dataclass(frozen=True)
class Failure:
    """Why a run failed.

    Attributes:
        exit_code: 2 for a config, data or model that the user must change, else 1.
        expected: whether the cause is known; other errors are recorded with their traceback.
    """

    message: str
    what_to_do: str
    exit_code: int = FAILED
    expected: bool = True

    def __post_init__(self) -> None:
        """Redact secrets, since the message is stored and displayed."""
        object.__setattr__(self, "message", redact(self.message))

    @property
    def reason(self) -> str:
        """Message and next step as one text, for `status.json`."""
        return f"{self.message} {self.what_to_do}".strip()


def _less_memory(config: RunConfig | None) -> str:
    if config is not None and method_of(config).frozen_base:
        rank = method_of(config).rank_key
        if config.get("quantization_bit"):
            return f"Lower {rank}, or use a smaller model." if rank else "Use a smaller model."
        return "Set quantization_bit: 4, or use a smaller model."
    return "Set finetuning_type: lora, or use a smaller model."


def _out_of_memory(config: RunConfig | None) -> Failure:
    if config is not None and (limit := stage_of(config).completion_limit):
        return Failure(
            "Out of memory when sampling completions or training on them.",
            f"Restart with a lower per_device_train_batch_size (and more gradient_accumulation_steps) or {limit}.",
        )
    # The trainer halves batches that are too large by itself: what did not fit here are weights or optimizer states.
    return Failure("Out of memory besides the examples of a step.", _less_memory(config))


def explain_failure(error: BaseException, config: RunConfig | None = None, folder: RunFolder | None = None) -> Failure:
    """Explain the cause of a failure and how to fix it, for a user who does not read tracebacks.

    If the disk is full, partial files are removed from the run's folder (None for other processes), to make room for
    the final state.
    """
    if folder is not None and is_disk_error(error):
        remove_partial_files(folder)
        return Failure(*failure_message(folder, error))
    if isinstance(error, UserError):
        return Failure(error.message, error.what_to_do, error.exit_code)
    if isinstance(error, UnpicklingError):
        return Failure(
            "A file of the checkpoint (optimizer, scheduler or random state) holds more than tensors, and none of it "
            "was run.",
            "Copy the run from its original source, or start a new one.",
        )
    if "does not require grad" in str(error):
        method = "its method" if config is None else f"finetuning_type {config.get('finetuning_type')}"
        return Failure(
            f"The loss does not depend on any parameter that {method} trains.",
            "Set finetuning_type: full, or use another model.",
        )
    if folder is None and config is None:
        return _outside_a_run(error)
    memory = is_out_of_memory(error)
    return _out_of_memory(config) if memory else _unexpected("trainer", error, "The traceback is in log.txt.")


def _outside_a_run(error: BaseException) -> Failure:
    """Failure of a process that has no run and no log, such as an evaluation or an export."""
    if is_disk_error(error):
        return Failure(f"A file could not be written: {first_line(error).rstrip('.')}.", "Free space on its disk.")
    if is_out_of_memory(error):
        return Failure("Out of memory.", "Free memory, or use a smaller model.")
    return _unexpected("process", error, "")


def _unexpected(who: str, error: BaseException, where: str) -> Failure:
    message = f"The {who} failed with {type(error).__name__}: {error}".splitlines()[0].rstrip(".: ")
    return Failure(f"{message}.", where, expected=False)
