"""Rules about evaluation, its metrics, early stopping and the best checkpoint."""

from __future__ import annotations

import re
from itertools import chain, count
from typing import TYPE_CHECKING

from llf_core.config.did_you_mean import listed, misspelt
from llf_core.config.evaluation_keys import declarations_of, function_name, is_in_file, known_names
from llf_core.config.registry import stage_of
from llf_core.config.rule import Fix, Rule, no_effect
from llf_core.config.rules.conditions import (
    HOLD_OUT,
    NOTHING_HELD_OUT,
    evaluates,
    never_evaluated,
    no_accuracy_reason,
    no_answers_reason,
    no_sets_reason,
)
from llf_core.config.training import Training

if TYPE_CHECKING:
    from llf_core.config.values import ConfigValues

NO_EVALUATION = Fix("Do not evaluate", {"eval_strategy": "no"})
EACH_EPOCH = Fix("Evaluate after each epoch", {"eval_strategy": "epoch", "eval_steps": None})
NO_STOPPING = Fix("Switch off early stopping", {"early_stopping_steps": None})
KEEP_LAST = Fix("Keep the last checkpoint", {"load_best_model_at_end": False})


def _other_metrics(config: ConfigValues) -> tuple[Fix, ...]:
    near = misspelt(best_metric(config), evaluation_metrics(config))
    meant = () if near is None else (Fix(f"Use {near}", {"metric_for_best_model": near}),)
    return (*meant, Fix("Use the evaluation loss", {"metric_for_best_model": None}))


def _contradicts(config: ConfigValues) -> bool:
    given, declared = config.training.greater_is_better, evaluation_metrics(config).get(best_metric(config))
    return given is not None and declared is not None and given != declared


def _hold_out_and_evaluate(c: ConfigValues) -> Fix:
    """Hold out 5 % (chosen by hand) of a config without evaluation data, and evaluate each epoch if it never does."""
    if c.training.eval_strategy != "no":
        return HOLD_OUT
    when = {"eval_strategy": "epoch"}
    if c.training.load_best_model_at_end:
        when["save_strategy"] = "epoch"
    return Fix("Hold out 5 % and evaluate each epoch", {"val_size": 0.05, **when})


def saves_are_evaluated(save_steps: float, eval_steps: float) -> bool:
    """Whether the interval of saves is a multiple of that of evaluations, as transformers demands to find the best.

    Each is a number of steps, or below 1 a share of the run; False if one is a share and the other a number.
    """
    if (save_steps < 1) != (eval_steps < 1):
        return False
    ratio = save_steps / eval_steps
    return abs(ratio - round(ratio)) < 1e-9  # noqa: PLR2004 - rounding of shares


def _is_name(name: str) -> bool:
    return bool(declarations_of(name)) or name.isidentifier() or is_in_file(name)


def _misspelt(c: ConfigValues) -> dict[str, str]:
    """A function of a cell may have any name but a misspelling of a metric's."""
    unknown = [name for name in c.evaluation.metrics or () if name.isidentifier() and not declarations_of(name)]
    known = known_names()
    return {name: near for name in unknown if (near := misspelt(name, known)) is not None}


def _corrected(c: ConfigValues) -> tuple[Fix, ...]:
    meant = _misspelt(c)
    names = [meant.get(name, name) for name in c.evaluation.metrics or ()]
    return (Fix(f"Use {', '.join(meant.values())}", {"metrics": ",".join(names)}),)


METRICS = "Expected names of metrics ({known}), of functions under `@llf.metric`, or `FILE.py:FUNCTION`."

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


EVALUATION = (
    no_effect(Training, "eval_steps", "eval_strategy: steps", lambda c: c.training.eval_strategy != "steps"),
    no_effect(Training, "save_steps", "save_strategy: steps", lambda c: c.training.save_strategy != "steps"),
    Rule(
        ("do_predict", "stage", "val_size", "eval_dataset", "streaming"),
        lambda c: bool(c.evaluation.do_predict and no_answers_reason(c)),
        lambda c: f"`do_predict` has nothing to answer: {no_answers_reason(c)}.",
        (Fix("Do not predict", {"do_predict": None}),),
    ),
    Rule(
        ("do_predict", "num_beams"),
        lambda c: c.evaluation.do_predict and c.generation.num_beams > 1,
        lambda c: f"`num_beams` is {c.generation.num_beams}, and predictions have no beam search. Expected 1.",
        (Fix("Use 1 beam", {"num_beams": None}),),
    ),
    Rule(
        ("metrics", "stage", "val_size", "eval_dataset"),
        lambda c: bool(c.evaluation.metrics and no_answers_reason(c)),
        lambda c: f"`metrics` has no effect: {no_answers_reason(c)}.",
        (Fix("Leave out the metrics", {"metrics": None}),),
        severity="warning",
    ),
    Rule(
        ("metrics",),
        lambda c: not all(map(_is_name, c.evaluation.metrics or ())),
        lambda c: (
            f"`metrics` has {next(repr(name) for name in c.evaluation.metrics or () if not _is_name(name))}. "
            + METRICS.format(known=", ".join(known_names()))
        ),
    ),
    Rule(
        ("metrics",),
        lambda c: bool(_misspelt(c)),
        lambda c: " ".join(
            f"`metrics` has {name}, which is no built-in metric. Did you mean {near}?"
            for name, near in _misspelt(c).items()
        ),
        _corrected,
        severity="warning",
    ),
    Rule(
        ("eval_strategy", "val_size", "eval_dataset"),
        lambda c: c.training.eval_strategy != "no" and not evaluates(c),
        f"Evaluation is enabled, but {NOTHING_HELD_OUT}",
        (HOLD_OUT, NO_EVALUATION),
    ),
    Rule(
        ("eval_on_start", "val_size", "eval_dataset"),
        lambda c: c.training.eval_on_start and not evaluates(c),
        f"Evaluation before training is enabled, but {NOTHING_HELD_OUT}",
        (HOLD_OUT, Fix("Do not evaluate before training", {"eval_on_start": False})),
    ),
    Rule(
        ("eval_strategy", "val_size", "eval_dataset"),
        lambda c: (
            never_evaluated(c) and c.training.early_stopping_steps is None and not c.training.load_best_model_at_end
        ),
        "The validation data is evaluated once, at the end of the run.",
        (EACH_EPOCH,),
        severity="note",
    ),
    Rule(
        ("early_stopping_steps", "val_size", "eval_dataset"),
        lambda c: c.training.early_stopping_steps is not None and not evaluates(c),
        f"Early stopping watches the evaluation loss, but {NOTHING_HELD_OUT}",
        lambda c: (_hold_out_and_evaluate(c), NO_STOPPING),
    ),
    Rule(
        ("early_stopping_steps", "eval_strategy"),
        lambda c: c.training.early_stopping_steps is not None and never_evaluated(c),
        "Early stopping watches the evaluation loss, but `eval_strategy` is no. Expected steps or epoch.",
        (EACH_EPOCH, NO_STOPPING),
    ),
    Rule(
        ("load_best_model_at_end", "val_size", "eval_dataset"),
        lambda c: c.training.load_best_model_at_end and not evaluates(c),
        f"The best checkpoint is the one with the best evaluation, but {NOTHING_HELD_OUT}",
        lambda c: (_hold_out_and_evaluate(c), KEEP_LAST),
    ),
    Rule(
        ("load_best_model_at_end", "eval_strategy"),
        lambda c: c.training.load_best_model_at_end and never_evaluated(c),
        "The best checkpoint is the one with the best evaluation, but `eval_strategy` is no. Expected steps or epoch.",
        (
            Fix("Evaluate and save each epoch", {"eval_strategy": "epoch", "save_strategy": "epoch"}),
            KEEP_LAST,
        ),
    ),
    Rule(
        ("load_best_model_at_end", "save_strategy", "eval_strategy"),
        lambda c: (
            c.training.load_best_model_at_end
            and c.training.eval_strategy != "no"
            and c.training.save_strategy not in {"best", c.training.eval_strategy}
        ),
        lambda c: (
            f"The best checkpoint must have been evaluated, but checkpoints are saved by "
            f"`{c.training.save_strategy}` and evaluated by `{c.training.eval_strategy}`. Expected the same."
        ),
        lambda c: (
            Fix("Save at each evaluation", {"save_strategy": c.training.eval_strategy}),
            Fix("Save the best only", {"save_strategy": "best"}),
            KEEP_LAST,
        ),
    ),
    Rule(
        ("save_steps", "eval_steps", "load_best_model_at_end"),
        lambda c: (
            c.training.load_best_model_at_end
            and c.training.save_strategy == "steps" == c.training.eval_strategy
            and not saves_are_evaluated(c.training.save_steps, c.training.eval_steps or c.training.logging_steps)
        ),
        lambda c: (
            "The best checkpoint must have been evaluated, but a checkpoint is saved every "
            f"{c.training.save_steps:g} steps and evaluated every "
            f"{c.training.eval_steps or c.training.logging_steps:g}. Expected a multiple."
        ),
        lambda c: (
            Fix(
                "Save at each evaluation",
                {"save_steps": c.training.eval_steps or c.training.logging_steps},
            ),
            KEEP_LAST,
        ),
    ),
    Rule(
        ("save_strategy", "eval_strategy"),
        lambda c: (
            c.training.save_strategy == "best"
            and (c.training.eval_strategy == "no" or c.training.metric_for_best_model is None)
            and not c.training.load_best_model_at_end
        ),
        "`save_strategy: best` needs to know which checkpoint is best. Expected an evaluation and "
        "`load_best_model_at_end`.",
        (
            Fix("Save by steps", {"save_strategy": "steps"}),
            Fix(
                "Evaluate each epoch, keep the best",
                {
                    "eval_strategy": "epoch",
                    "load_best_model_at_end": True,
                    "val_size": 0.05,
                    "eval_dataset": None,
                },
            ),
        ),
    ),
    Rule(
        ("metric_for_best_model",),
        lambda c: best_metric(c) not in evaluation_metrics(c),
        lambda c: (
            f"`metric_for_best_model` is {c.training.metric_for_best_model or 'empty'}, which the evaluations "
            f"of this run do not compute. Expected {listed(evaluation_metrics(c))}."
        ),
        _other_metrics,
    ),
    Rule(
        ("greater_is_better",),
        _contradicts,
        lambda c: (
            f"`greater_is_better` is {str(c.training.greater_is_better).lower()}, but a "
            f"{'lower' if c.training.greater_is_better else 'higher'} {best_metric(c)} is better. "
            "Expected it to be absent."
        ),
        (Fix("Remove greater_is_better", {"greater_is_better": None}),),
    ),
    Rule(
        ("compute_accuracy", "val_size", "eval_dataset"),
        lambda c: c.evaluation.compute_accuracy and bool(no_accuracy_reason(c)),
        lambda c: f"`compute_accuracy` has no effect: {no_accuracy_reason(c)}.",
        (Fix("Leave it out", {"compute_accuracy": False}),),
        severity="warning",
    ),
    Rule(
        ("eval_on_each_dataset", "stage", "val_size", "eval_dataset"),
        lambda c: c.evaluation.eval_on_each_dataset and bool(no_sets_reason(c)),
        lambda c: f"`eval_on_each_dataset` has no effect: {no_sets_reason(c)}.",
        (Fix("Leave it out", {"eval_on_each_dataset": False}),),
        severity="warning",
    ),
)
