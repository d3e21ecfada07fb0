"""Whether a trainer has loaded what a checkpoint was written of."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.models import ModelError
from llf_core.models.checksums import differences, enumerated, kept_tensors, named_tensors
from llf_core.runs.step_counters import read_counters, step_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.runs import Checkpoints
    from llf_core.stages.base.loop import TrainingLoop

ARCHIVES = ("*.pt", "*.pth")
TENSORS = "tensors"
"""The key of a checkpoint's checksums among what it remembers."""


def check_reloaded(
    trainer: TrainingLoop,
    counters: Mapping[str, Any],
    checkpoints: Checkpoints,
    step: int,
    *,
    model_alone: bool = False,
) -> str:
    """Compares what a trainer has loaded with what was in memory when the checkpoint was written.

    Args:
        trainer: after it has loaded the checkpoint, before its first step.
        counters: of the checkpoint.
        checkpoints: of the run.
        step: the checkpoint's.
        model_alone: whether only the model was loaded, without what its stage trains beside it.

    Returns:
        What is not known, as a sentence, where the checkpoint has no checksums; else nothing.

    Raises:
        ModelError: a tensor is not what it was, or was not saved.
    """
    expected = counters.get(TENSORS)
    name = checkpoints.path(step).name
    if expected is None:
        return (
            f"{name} has no checksums, since an older version wrote it: whether its weights were loaded as they were "
            "saved is not known."
        )
    model, beside = trainer.model, trainer.stage.beside()
    if model_alone:
        own = model.state_dict().keys()
        expected = {name: entry for name, entry in expected.items() if name in own}
        beside = ()
    apart = [str(one) for one in differences(expected, named_tensors(model, beside))]
    if not model_alone:
        apart += [f"{one} (not in the checkpoint)" for one in kept_tensors(model, beside) if one not in expected]
    if not apart:
        return ""
    raise ModelError(
        f"{name} was not loaded as it was saved: {enumerated(apart)}. Its files were changed, or the installed "
        f"libraries leave a part of them out. {_what_to_do(checkpoints, step)}"
    )


def check_archives(checkpoints: Checkpoints, step: int) -> None:
    """Compares what `torch.save` wrote of a checkpoint (optimizer, schedule, random state) with its checksums.

    torch writes a CRC-32 beside each part and does not look at it when it loads.

    Args:
        checkpoints: of the run.
        step: the checkpoint's.

    Raises:
        ModelError: a part is not what was written.
    """
    folder = checkpoints.path(step)
    for path in sorted(path for pattern in ARCHIVES for path in folder.glob(pattern)):
        try:
            with zipfile.ZipFile(path) as archive:
                part = archive.testzip()
        except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError):
            part = "the archive itself"
        if part is not None:
            raise ModelError(
                f"{folder.name}/{path.name} is damaged: {part} is not what was written. "
                f"{_what_to_do(checkpoints, step)}"
            )


def _what_to_do(checkpoints: Checkpoints, step: int) -> str:
    others = [other for other in checkpoints.list() if other != step]
    steps = f"of step {', '.join(map(str, others))}" if others else "of which this run has none"
    return f"Branch from another checkpoint ({steps}), or start a new run."


def check_best(trainer: TrainingLoop, checkpoints: Checkpoints) -> str:
    """`check_reloaded` of the best checkpoint, where a run ends with that one's weights.

    Raises:
        ModelError: a tensor is not what it was.
    """
    best = trainer.state.best_model_checkpoint
    if not trainer.args.load_best_model_at_end or not best:
        return ""
    return check_reloaded(trainer, read_counters(Path(best)), checkpoints, step_of(best), model_alone=True)
