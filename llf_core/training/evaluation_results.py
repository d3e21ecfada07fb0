"""Evaluation results, saved as `eval_results.json` beside the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from llf_core.config.registry import stage_of
from llf_core.config.rules.evaluation_metrics import evaluation_sets, of_set
from llf_core.metrics.likelihood import perplexity

if TYPE_CHECKING:
    from transformers import TrainerState

    from llf_core.config import RunConfig

EVALUATION_RESULTS = "eval_results.json"
"""LLaMA-Factory's file name of these values."""


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
