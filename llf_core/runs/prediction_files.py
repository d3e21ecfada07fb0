"""The files of predictions (`do_predict`, `llf predict`), and what a finished prediction says for a view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llf_core.runs.event_fields import is_count
from llf_core.untrusted import leads_to_file, read_object_or_empty

if TYPE_CHECKING:
    from pathlib import Path

RESULT = "generated_predictions.jsonl"
"""LLaMA-Factory's name of the result: `{"prompt", "predict", "label"}` for each record, in the order of the data."""
STATE = "generated_predictions.json"
"""What the predictions depend on, and whether they are finished."""
RESULTS = "predict_results.json"
"""LLaMA-Factory's name of the values of a prediction."""
PREFIX = "predict_"
"""Prefix of the names of these values."""
SAMPLES = f"{PREFIX}samples"
"""Name of the number of records that have a prediction, among the values."""


@dataclass(frozen=True)
class FinishedPredictions:
    """Predictions of all records of the data.

    Attributes:
        predicted: records that have a prediction, and not an error; None until they are scored, and if it is damaged.
    """

    records: int
    predicted: int | None


def finished_predictions(folder: Path) -> FinishedPredictions | None:
    """How many predictions a folder has, if they are finished, for the views that list them.

    Args:
        folder: the folder of predictions, such as `RunFolder.predictions`; it may come from a stranger.

    Returns:
        Their numbers; None if there are none, some are missing, or `STATE` is damaged.
    """
    state = read_object_or_empty(folder / STATE)
    records: Any = state.get("total")
    if state.get("finished") is not True or not is_count(records) or not leads_to_file(folder / RESULT):
        return None
    predicted: Any = read_object_or_empty(folder / RESULTS).get(SAMPLES)
    return FinishedPredictions(records, predicted if is_count(predicted) and predicted <= records else None)
