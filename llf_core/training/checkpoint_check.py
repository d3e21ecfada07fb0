"""Verifies that a trainer has loaded exactly what a checkpoint contains."""

from __future__ import annotations

import lzma
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from transformers import TrainerState

from llf_core.models import ModelError
from llf_core.models.checksums import checkpoint_tensors, differences, list_first, named_tensors
from llf_core.models.errors import first_line
from llf_core.models.memory import is_out_of_memory
from llf_core.runs.step_counters import WHAT_TO_DO, read_counters, step_of
from llf_core.untrusted import HISTORY_BYTES, json_value, read_bytes
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llf_core.runs import Checkpoints
    from llf_core.stages.base.loop import TrainingLoop

ARCHIVES = ("*.pt", "*.pth")
TRAINER_STATE = "trainer_state.json"
TENSORS = "tensors"
"""Key of the checksums in a checkpoint's counters."""


def check_reloaded(
    trainer: TrainingLoop,
    counters: Mapping[str, Any],
    checkpoints: Checkpoints,
    step: int,
    *,
    model_alone: bool = False,
) -> str:
    """Compare the loaded state with the checksums of the tensors that the checkpoint was written from.

    Libraries raise no error if they leave a part out on loading, and the resumed run would only be slightly worse.

    Args:
        model_alone: whether only the model was loaded, without auxiliary models that the stage trains.

    Raises:
        ModelError: a tensor differs, is missing or was not saved, or the stored checksums are not valid.
    """
    expected = counters.get(TENSORS)
    name = checkpoints.path(step).name
    if expected is None:
        return (
            f"{name} has no checksums, since an older version wrote it: whether its weights were loaded as they were "
            "saved is not known."
        )
    model, beside = trainer.model, trainer.stage.auxiliary_models()
    if model_alone:
        own = model.state_dict().keys()
        expected = {name: entry for name, entry in expected.items() if name in own}
        beside = ()
    apart = [str(one) for one in differences(expected, named_tensors(model, beside))]
    if not model_alone:
        apart += [f"{one} (not in the checkpoint)" for one in checkpoint_tensors(model, beside) if one not in expected]
    if not apart:
        return ""
    raise ModelError(
        f"{name} does not load as it was saved: {list_first(apart)}. Its files were changed, or the installed "
        f"libraries leave a part of them out. {_what_to_do(checkpoints, step)}"
    )


def check_archives(checkpoints: Checkpoints, step: int) -> None:
    """Verify the CRC-32 checksums in a checkpoint's `torch.save` files, and the headers of its safetensors files.

    torch stores these checksums (of optimizer, scheduler and RNG state) but does not verify them on loading.
    ModelError if a file is corrupt.
    """
    folder = checkpoints.path(step)
    for path in sorted(path for pattern in ARCHIVES for path in folder.glob(pattern)):
        try:
            with zipfile.ZipFile(path) as archive:
                part = archive.testzip()
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError):
            part = "the archive itself"
        if part is not None:
            raise ModelError(
                f"{folder.name}/{path.name} is damaged: {part} does not match its checksum. "
                f"{_what_to_do(checkpoints, step)}"
            )
    _check_headers(checkpoints, step)


def _check_headers(checkpoints: Checkpoints, step: int) -> None:
    folder = checkpoints.path(step)
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt"):
                pass
        except SafetensorError as error:
            raise ModelError(
                f"{folder.name}/{path.name} is damaged: {first_line(error).rstrip('.')}. "
                f"{_what_to_do(checkpoints, step)}"
            ) from error


def trainer_state(checkpoint: Path) -> TrainerState:
    """Read the Trainer's state of a checkpoint before the Trainer does; ModelError if the file is damaged."""
    try:
        return TrainerState(**json_value(read_bytes(checkpoint / TRAINER_STATE, HISTORY_BYTES)))
    except (ValueError, TypeError, AttributeError) as error:
        raise damaged_state(checkpoint, error) from error


@contextmanager
def as_damaged(checkpoint: Path, what: str) -> Iterator[None]:
    """Context manager: errors of unexpected content become a ModelError, which names the checkpoint."""
    try:
        yield
    except (LookupError, RuntimeError, ValueError, TypeError, EOFError, SafetensorError) as error:
        if isinstance(error, UserError) or is_out_of_memory(error):
            raise
        why = first_line(error).rstrip(".")
        raise ModelError(f"{what} in {checkpoint.name} is not one of this run: {why}. {WHAT_TO_DO}") from error


def damaged_state(checkpoint: Path, error: Exception) -> ModelError:
    """Error of a checkpoint with a damaged `trainer_state.json`."""
    return ModelError(f"{checkpoint.name}/{TRAINER_STATE} is damaged: {first_line(error).rstrip('.')}. {WHAT_TO_DO}")


def _what_to_do(checkpoints: Checkpoints, step: int) -> str:
    others = [other for other in checkpoints.list() if other != step]
    steps = f"of step {', '.join(map(str, others))}" if others else "this run has none"
    return f"Branch from another checkpoint ({steps}), or start a new run."


def check_best(trainer: TrainingLoop, checkpoints: Checkpoints) -> str:
    """Run `check_reloaded` for the best checkpoint if the run ends with its weights; else return an empty string."""
    best = trainer.state.best_model_checkpoint
    if not trainer.args.load_best_model_at_end or not best:
        return ""
    return check_reloaded(trainer, read_counters(Path(best)), checkpoints, step_of(best), model_alone=True)
