"""Keys by which a config file asks for an evaluation or predictions, and the names of metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.declaration import MetricDeclaration
from llf_core.config.option import flag, split_names
from llf_core.config.registry import declared

if TYPE_CHECKING:
    from collections.abc import Mapping


EVALUATION_KEYS = frozenset({
    "task", "task_dir", "batch_size", "lang", "n_shot", "save_dir", "download_mode",
    "do_train", "do_eval", "do_predict", "predict_with_generate", "compute_accuracy", "eval_on_each_dataset",
    "dataset", "eval_dataset", "val_size", "dataset_dir", "max_samples", "max_new_tokens", "metrics", "output_dir",
})  # fmt: skip
"""Keys that say what is evaluated and how."""

PREDICTION_KEYS = frozenset({
    "do_sample", "temperature", "top_p", "top_k", "repetition_penalty", "num_beams", "max_new_tokens"
})  # fmt: skip
"""Keys of the section `generation` by which predictions are generated."""


def asks_for_evaluation(values: Mapping[str, object]) -> bool:
    """Whether a config, as requested, names a task, or says `do_train: false` and asks for no predictions."""
    return names_task(values) or (flag(values.get("do_train")) is False and flag(values.get("do_predict")) is not True)


def names_task(values: Mapping[str, object]) -> bool:
    """Whether `task` names one."""
    return bool(split_names(values.get("task")))


def asks_for_predictions(values: Mapping[str, object]) -> bool:
    """Whether a config asks for predictions alone: `do_predict` without `do_train`, as in LLaMA-Factory."""
    train = values.get("do_train")
    return flag(values.get("do_predict")) is True and (train is None or flag(train) is False)


def prediction_values(values: Mapping[str, object]) -> dict[str, object]:
    """The config of a prediction, whose `dataset` is the data set to predict.

    `eval_dataset` takes the place of `dataset`, and `val_size` is left out then; without it, readers take the share
    `val_size` of `dataset`. The folder for its result, and the keys that ask for it and for its metrics, are left out.
    A flag that is neither true nor false stays, for the check of the config to refuse.
    """
    asked = dict(values)
    # The first may have the predictions of an earlier start; the others are read by who predicts.
    for key in ("output_dir", "metrics"):
        asked.pop(key, None)
    for key in ("predict_with_generate", "do_predict", "do_train"):
        if asked.get(key) is None or flag(asked[key]) is not None:
            asked.pop(key, None)
    evaluated = asked.pop("eval_dataset", None)
    if evaluated:
        asked |= {"dataset": evaluated}
        asked.pop("val_size", None)
    return asked


def declarations_of(name: str) -> list[MetricDeclaration]:
    """The declarations of one metric or of all in a group; empty for any other name, such as a function's."""
    return [one for one in declared(MetricDeclaration).values() if name and name in {one.name, one.group}]


def known_names() -> list[str]:
    """Names of all declared metrics and groups: groups and metrics in no group first, then the metrics of groups."""
    every = declared(MetricDeclaration).values()
    return list(dict.fromkeys([*(one.group or one.name for one in every), *(one.name for one in every)]))


def function_name(name: str) -> str:
    """Name of the function that `f` or `file.py:f` in `metrics` means, in results and in `code/`."""
    return name.rpartition(":")[2]


def is_in_file(name: str) -> bool:
    """Whether a name in `metrics` is that of a function in a file, `file.py:f`."""
    path, _, function = name.rpartition(":")
    return path.endswith(".py") and function.isidentifier()
