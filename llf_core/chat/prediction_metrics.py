"""Scores the responses of a finished prediction against the reference responses."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.metrics import MetricError, ScoredExample, load_metrics, metric_sources, score_answers
from llf_core.metrics.interval import interval
from llf_core.runs.files import json_bytes, replace_file
from llf_core.runs.jsonl import records
from llf_core.runs.prediction_files import PREFIX, RESULTS, SAMPLES
from llf_core.untrusted import read_object
from llf_core.user_functions.function_files import write_code

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from llf_core.chat.predict_data import PredictPrompt
    from llf_core.chat.predictions import PredictionFolder
    from llf_core.metrics import Metric

TIMES = (f"{PREFIX}runtime", f"{PREFIX}samples_per_second")


@contextmanager
def prediction_metrics(names: Sequence[str], warn: Callable[[str], object]) -> Iterator[list[Metric]]:
    """Context manager that loads metrics, groups and functions (`file.py:f`), whose source is kept until its end.

    A metric whose package is missing is left out with a warning: the same command adds its value later.
    """
    sources = metric_sources(names)
    with tempfile.TemporaryDirectory(prefix="llf-metrics-") as place:
        write_code(Path(place), sources)
        found: dict[str, Metric] = {}
        for name in names:
            try:
                found |= {one.name: one for one in load_metrics([name], Path(place))}
            except MetricError as error:
                if not isinstance(error.__cause__, ImportError):
                    raise
                warn(f"{error.message}. The responses are not scored by it.")
        yield list(found.values())


def score_predictions(
    metrics: Sequence[Metric],
    place: PredictionFolder,
    prompts: Sequence[PredictPrompt],
    times: dict[str, float],
) -> dict[str, Any]:
    """Score a finished prediction, without records that failed, and write the values to `predict_results.json`.

    Args:
        times: seconds and speed of a prediction that was made in one go, by the names of `TIMES`; empty keeps the
            earlier ones.

    Returns:
        `predict_NAME` of each metric, with the bounds of its 95 % interval as `predict_NAME/low` and
        `predict_NAME/high`, `predict_samples` and the times.
    """
    rows = list(records(place.result))
    pairs = [(row.get("predict"), prompt) for row, prompt in zip(rows, prompts, strict=True) if "error" not in row]
    scored = [(answer, prompt) for answer, prompt in pairs if isinstance(answer, str)]
    answers = [answer for answer, _ in scored]
    examples = [ScoredExample(prompt.messages, prompt.label or None) for _, prompt in scored]
    values: dict[str, object] = {SAMPLES: len(scored)}
    for metric in metrics:
        found = interval(score_answers(metric, answers, examples).statistics, metric.measure)
        name = PREFIX + metric.name
        bounds = {f"{name}/low": found.low, f"{name}/high": found.high}
        values |= {key: value for key, value in ({name: found.value} | bounds).items() if value is not None}
    known = read_object(place.folder / RESULTS)
    values |= times or {name: known[name] for name in TIMES if name in known}
    replace_file(place.folder / RESULTS, json_bytes(values))
    return values
