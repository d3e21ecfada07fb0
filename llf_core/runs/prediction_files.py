"""The files of predictions (`do_predict`, `llf predict`)."""

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
"""Settings of the predictions, and whether they are finished."""
RESULTS = "predict_results.json"
PREFIX = "predict_"
SAMPLES = f"{PREFIX}samples"


@dataclass(frozen=True)
class FinishedPredictions:
    """Number of records of finished predictions, and of those without an error, once they are scored."""

    records: int
    predicted: int | None


def finished_predictions(folder: Path) -> FinishedPredictions | None:
    """The numbers of finished predictions in a folder; None if any are missing, or `STATE` is damaged."""
    state = read_object_or_empty(folder / STATE)
    records: Any = state.get("total")
    if state.get("finished") is not True or not is_count(records) or not leads_to_file(folder / RESULT):
        return None
    predicted: Any = read_object_or_empty(folder / RESULTS).get(SAMPLES)
    return FinishedPredictions(records, predicted if is_count(predicted) and predicted <= records else None)
