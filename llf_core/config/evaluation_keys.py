"""Keys by which a config file asks for an evaluation instead of a training run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

EVALUATION_KEYS = frozenset({
    "task", "task_dir", "batch_size", "lang", "n_shot", "save_dir", "download_mode",
    "do_train", "do_eval", "do_predict", "predict_with_generate", "compute_accuracy", "eval_on_each_dataset",
    "dataset", "eval_dataset", "val_size", "dataset_dir", "max_samples", "max_new_tokens", "metrics", "output_dir",
})  # fmt: skip
"""Keys that say what is evaluated and how. The others say which model, and how it is loaded."""


def asks_for_evaluation(values: Mapping[str, object]) -> bool:
    """Whether a config asks for an evaluation: it names a task, or says `do_train: false` and asks for no predictions.

    Args:
        values: the values of the config as requested.
    """
    return values.get("task") is not None or (values.get("do_train") is False and values.get("do_predict") is not True)
