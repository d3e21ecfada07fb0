"""Saves the result of a run with its evaluation results (`eval_results.json`), and pushes it to a hub."""

from __future__ import annotations

import logging
import shutil
from typing import TYPE_CHECKING

import numpy as np

from llf_core.config.registry import stage_of
from llf_core.config.rules.evaluation import evaluation_sets, of_set
from llf_core.metrics.base_metric import perplexity
from llf_core.models import save_output
from llf_core.models.checksums import write_checksums
from llf_core.models.model_source import ModelSource, resolve_trust_remote_code
from llf_core.models.push import commit_message, find_destination, push_folder
from llf_core.runs import folder_bytes, read_meta
from llf_core.runs.creation import slug
from llf_core.runs.files import json_bytes, replace_file
from llf_core.runs.jsonl import spell_non_finite
from llf_core.training.output_copy import OutputCopyError, copy_output

if TYPE_CHECKING:
    from transformers import TrainerState

    from llf_core.config import RunConfig
    from llf_core.models.push import Destination
    from llf_core.runs import RunFolder
    from llf_core.stages.base.context import TrainingContext
    from llf_core.stages.base.loop import TrainingLoop

logger = logging.getLogger(__name__)

EVALUATION_RESULTS = "eval_results.json"
"""LLaMA-Factory's file name of these values."""
PUSH_KEY = "push_to_hub"


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


def evaluation_results(config: RunConfig, state: TrainerState) -> dict[str, float]:
    """Evaluation of the saved weights: of the best checkpoint, or after the last step; empty if not evaluated.

    By the names of the log, and `epoch`. Of a stage with `perplexity` also `eval_perplexity`, and
    `eval_NAME_perplexity` of each data set with a loss of its own, as in LLaMA-Factory's `run_pt`; infinite for
    losses above 709.78 nats.
    """
    best = state.best_global_step if config.training.load_best_model_at_end else None
    entries = [entry for entry in state.log_history if entry["step"] == (best or state.global_step)]
    found = {name: value for entry in entries for name, value in entry.items() if name.startswith("eval_")}
    if not found:
        return {}
    if stage_of(config).perplexity:
        for prefix in ("eval", *(of_set("eval", name) for name in evaluation_sets(config))):
            if (loss := found.get(f"{prefix}_loss")) is not None:
                found[f"{prefix}_perplexity"] = float(perplexity(np.array([loss, 1.0])))
    return found | {"epoch": entries[-1]["epoch"]}


def push_destination(config: RunConfig, folder: RunFolder) -> Destination | None:
    """Where the result of a run is pushed to, checked before the first step; None without `push_to_hub`.

    Without `hub_model_id` the repository has the run's name, as a file name.
    """
    training = config.training
    if not training.push_to_hub:
        return None
    name = training.hub_model_id or slug(str(read_meta(folder).get("name") or folder.id))
    return find_destination(name, private=training.hub_private_repo, revision=training.hub_revision)


def push_result(folder: RunFolder, to: Destination) -> str:
    """Push `output/` to a hub, when the run has finished."""
    return f"Pushed the result to {push_folder(folder.output, to, commit_message(['the result', folder.id]))}."
