"""Which metrics the evaluations of a run compute, and which of their values are better."""

from __future__ import annotations

import re
from itertools import chain, count
from typing import TYPE_CHECKING

from llf_core.config.metric_names import declarations_of, function_name
from llf_core.config.registry import stage_of
from llf_core.config.rules.conditions import evaluates, no_accuracy_reason, no_answers_reason, no_sets_reason

if TYPE_CHECKING:
    from llf_core.config.values import ConfigValues

ACCURACY = "accuracy"
"""LLaMA-Factory's name of the token accuracy."""
DATA_FILE = re.compile(r"\.(jsonl?|csv|parquet|arrow|txt)$")


def evaluation_metrics(config: ConfigValues) -> dict[str, bool | None]:
    """The metrics by which a run's checkpoints can be ranked, the loss first.

    Returns:
        By name, without `eval_`: whether a higher value is better; None for a function, known once it is loaded.
    """
    found: dict[str, bool | None] = {"loss": False, **stage_of(config).evaluation_metrics}
    if config.evaluation.compute_accuracy and not no_accuracy_reason(config):
        found[ACCURACY] = True
    found |= answer_metrics(config)
    sets = evaluation_sets(config) if config.evaluation.eval_on_each_dataset and not no_sets_reason(config) else ()
    return found | {of_set(one, name): better for one in sets for name, better in found.items()}


def answer_metrics(config: ConfigValues) -> dict[str, bool | None]:
    """The metrics of generated answers that each evaluation computes, as `evaluation_metrics` returns them."""
    if no_answers_reason(config):
        return {}
    found: dict[str, bool | None] = {}
    for name in config.evaluation.metrics or ():
        declared: dict[str, bool | None] = {one.name: one.higher_is_better for one in declarations_of(name)}
        found |= declared or {function_name(name): None}
    return found


def best_metric(config: ConfigValues) -> str:
    """The metric that decides which checkpoint is best, without `eval_`; the reward where groups are sampled."""
    given = config.training.metric_for_best_model
    name = "loss" if given is None else given.removeprefix("eval_")
    return "reward" if name == "loss" and stage_of(config).samples_groups else name


def evaluation_sets(config: ConfigValues) -> tuple[str, ...]:
    """Names in metrics of the evaluation's data sets: `eval_dataset`, else `dataset`; empty without evaluation data."""
    return set_names(config.data.eval_dataset or config.data.dataset or ()) if evaluates(config) else ()


def set_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names of data sets in metrics, all different: `held_out` for `data/held_out.json`.

    Names that would be equal keep their folders, or get a number.
    """
    short = [DATA_FILE.sub("", name.rstrip("/").rpartition("/")[2]) for name in names]
    whole = [one if short.count(one) == 1 else name for one, name in zip(short, names, strict=True)]
    plain = [re.sub(r"[^\w.-]+", "_", one) for one in whole]
    found: list[str] = []
    for one in plain:
        numbered = (f"{one}_{number}" for number in count(2))
        found.append(next(name for name in chain([one], numbered) if name not in found))
    return tuple(found)


def of_set(one: str, name: str) -> str:
    """Name of the metric of a single data set, as in transformers and LLaMA-Factory: `identity_loss`."""
    return f"{one}_{name}"
