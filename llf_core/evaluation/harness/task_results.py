"""Converts lm-eval's results."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llf_core.runs.evaluations import ExampleResult, MetricValue

if TYPE_CHECKING:
    from lm_eval.api.task import Task
    from lm_eval.result_schema import EvalResults, SampleResult

    from llf_core.evaluation.harness.load_tasks import LoadedTask

LABELS = {
    "acc": "Accuracy",
    "acc_norm": "Accuracy by length",
    "acc_bytes": "Accuracy by bytes",
    "exact_match": "Exact match",
    "em": "Exact match",
    "f1": "F1",
    "perplexity": "Perplexity",
    "word_perplexity": "Perplexity of words",
    "byte_perplexity": "Perplexity of bytes",
    "bits_per_byte": "Bits per byte",
}
SHARES = ("acc", "exact_match", "em", "f1", "prompt_level", "inst_level")
"""Prefixes of metrics between 0 and 1."""
NORMAL = 1.959964
"""Half-width of a 95 % interval of a normal distribution, in standard errors."""


def metric_values(task: LoadedTask, results: EvalResults) -> list[MetricValue]:
    """The metrics of a task as a result stores them, with a 95 % interval.

    value ± 1.96 standard errors of lm-eval (Wasserman, All of Statistics, section 6.3.2), of a share within 0 and 1.

    Args:
        results: what `lm_eval.evaluator.evaluate` returned.
    """
    own = results["results"][task.name]
    found = []
    for key, value in own.items():
        metric, comma, kind = key.partition(",")
        if not comma or metric.endswith("_stderr") or not _is_number(value):
            continue
        error = own.get(f"{metric}_stderr,{kind}")
        half = NORMAL * error if _is_number(error) else None
        share = metric.startswith(SHARES)
        least, most = (0.0, 1.0) if share else (-math.inf, math.inf)
        parts = {leaf: results["results"][leaf].get(key) for leaf in task.leaves}
        found.append(
            MetricValue(
                _score_name(metric, kind),
                _score_name(LABELS.get(metric, metric), kind),
                float(value),
                None if half is None else max(least, float(value - half)),
                None if half is None else min(most, float(value + half)),
                sum(results["n-samples"][leaf]["effective"] for leaf in task.leaves),
                "%" if share else "",
                results["higher_is_better"].get(task.name, {}).get(metric) is not False,
                {leaf: float(part) for leaf, part in parts.items() if _is_number(part)},
                float(error) if _is_number(error) else None,
            )
        )
    return found


def example_results(task: LoadedTask, results: EvalResults) -> list[ExampleResult]:
    """The examples of a task, each with its scores.

    Args:
        results: what `lm_eval.evaluator.evaluate` returned, with `log_samples`.
    """
    found = []
    for leaf, one in task.leaves.items():
        rows: dict[int, list[SampleResult]] = {}
        for sample in results["samples"][leaf]:
            rows.setdefault(sample["doc_id"], []).append(sample)
        for index, samples in rows.items():
            scores = {
                _score_name(metric, sample["filter"]): float(sample[metric])
                for sample in samples
                for metric in sample["metrics"]
                if _is_number(sample[metric])
            }
            prompt = ({"role": "user", "content": _question(one, samples[0])},)
            reference, answer = _reference_and_answer(one, samples[0])
            found.append(ExampleResult(index, leaf, prompt, reference, answer, scores))
    return found


def _score_name(metric: str, kind: str) -> str:
    """Metric with its filter, such as `exact_match (strict-match)`; `none` is no filter."""
    return metric if kind == "none" else f"{metric} ({kind})"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _question(task: Task, sample: SampleResult) -> str:
    """The question without solved examples; the whole context where a task has none."""
    text = task.doc_to_text(sample["doc"])
    return text if isinstance(text, str) else str(sample["arguments"][0][0])


def _reference_and_answer(task: Task, sample: SampleResult) -> tuple[str | None, str | None]:
    target, replies = sample["target"], sample["filtered_resps"]
    if task.OUTPUT_TYPE == "multiple_choice":
        choices = task.doc_to_choice(sample["doc"])
        best = max(range(len(choices)), key=lambda number: replies[number][0])
        right = choices[target] if isinstance(target, int) and 0 <= target < len(choices) else target
        return str(right), str(choices[best])
    if task.OUTPUT_TYPE == "generate_until":
        reply = replies[0]
        return str(target), reply if isinstance(reply, str) else str(reply)
    return None if target is None else str(target), None
