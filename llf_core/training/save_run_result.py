"""Saves the result of a run."""

from __future__ import annotations

import logging
import shutil
from typing import TYPE_CHECKING

from llf_core.models import save_output
from llf_core.models.checksums import write_checksums
from llf_core.models.model_source import ModelSource
from llf_core.models.remote_code import resolve_trust_remote_code
from llf_core.runs import folder_bytes
from llf_core.runs.files import json_bytes, replace_file
from llf_core.runs.jsonl import spell_non_finite
from llf_core.training.evaluation_results import EVALUATION_RESULTS, evaluation_results
from llf_core.training.output_copy import OutputCopyError, copy_output

if TYPE_CHECKING:
    from llf_core.stages.base.context import TrainingContext
    from llf_core.stages.base.loop import TrainingLoop

logger = logging.getLogger(__name__)


def save_run_result(context: TrainingContext, trainer: TrainingLoop) -> str:
    """Write `output/` atomically, then copy it to `output_dir`; returns why the copy failed, else an empty string.

    Modifiers and method undo their changes for training, so the model must not be trained further.
    """
    folder, writer, config = context.folder, context.writer, context.config
    partial = folder.path / ".output"
    shutil.rmtree(partial, ignore_errors=True)
    told = ("loss", "eval_loss", "reward", "eval_reward", "rewards/accuracies", "eval_rewards/accuracies")
    metrics = {name: entry[name] for entry in trainer.state.log_history for name in told if name in entry}
    model = trainer.accelerator.unwrap_model(trainer.model)
    for modifier in reversed(context.modifiers):
        modifier.remove(model)
    if context.method is not None:
        context.method.finish()
    written = save_output(model, context.processor or context.tokenizer, partial, context.source, config, metrics)
    if values := evaluation_results(config, trainer.state):
        replace_file(partial / EVALUATION_RESULTS, json_bytes(spell_non_finite(values)))
    shutil.rmtree(folder.output, ignore_errors=True)
    folder.output_record.unlink(missing_ok=True)  # so that it never describes another result
    partial.replace(folder.output)
    write_checksums(folder, written)
    # Its code is allowed, as that of its base is.
    resolve_trust_remote_code(ModelSource(str(folder.output), folder.output, "folder"), config)
    writer.event("output", path="output", bytes=folder_bytes(folder.output))
    if config.training.output_dir:
        try:
            logger.info(copy_output(config, folder))
        except OutputCopyError as error:
            writer.warn("output_dir", str(error))
            return str(error)
    return ""
