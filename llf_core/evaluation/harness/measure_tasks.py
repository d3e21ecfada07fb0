"""Measures targets on tasks of lm-eval, and converts its results."""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

import jinja2
from lm_eval.evaluator import evaluate

from llf_core.chat.target import loading_config, plan_base
from llf_core.evaluation.errors import EvaluationError
from llf_core.evaluation.harness.live_model import LiveModel
from llf_core.evaluation.harness.load_tasks import hub_access, load_tasks, set_seed
from llf_core.evaluation.loaded_targets import (
    PlannedResult,
    keep_for_others,
    known_result,
    loaded_targets,
    loading_of,
    named_target,
    places_of,
    run_of,
)
from llf_core.models.errors import first_line
from llf_core.models.resolve import resolve_model
from llf_core.models.tokenizer import load_tokenizer
from llf_core.runs.config_file import run_config
from llf_core.runs.evaluations import EvaluatedData, EvaluationWriter, ExampleResult, MetricValue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from lm_eval.api.task import Task
    from lm_eval.result_schema import EvalResults, SampleResult

    from llf_core.evaluation.harness.load_tasks import LoadedTask
    from llf_core.evaluation.loaded_targets import LoadedTarget
    from llf_core.evaluation.request import EvaluationRequest
    from llf_core.evaluation.worker_process import Progress
    from llf_core.runs.evaluations import EvaluationResult


FAULTS = (
    ValueError, KeyError, TypeError, AttributeError, IndexError, AssertionError, ImportError, ArithmeticError,
    jinja2.TemplateError,
)  # fmt: skip
"""Errors of the code and the templates of tasks."""

BOOTSTRAPS = 1000
"""Resamplings for the standard error of anything but a mean; lm-eval's 100,000 take longer than the model."""


@dataclass(frozen=True)
class PlannedTask(PlannedResult):
    """A target that is measured on a task."""

    order: int
    task: LoadedTask


def measure_tasks(
    request: EvaluationRequest, progress: Progress, on_result: Callable[[int, Path, int], object]
) -> None:
    """Measure the targets of a request on its tasks, all of which are read before the first model is loaded.

    Args:
        on_result: called with the number of a target, the folder of its complete result and the number of the task.
    """
    progress("Reading the tasks", 0, 0)
    tasks = load_tasks(request.tasks, n_shot=request.n_shot, seed=request.seed, limit=request.limit, hub=request.hub)
    groups: dict[str, list[PlannedTask]] = {}
    for plan in _plan(request, tasks):
        known = None if request.again else known_result(plan)
        if known is None:
            groups.setdefault(plan.target.base_key, []).append(plan)
        else:
            on_result(plan.number, known, plan.order)
    for group in groups.values():
        for plan, loaded in loaded_targets(group, generates=True, progress=progress):
            result = _measure(plan, loaded, request, progress)
            keep_for_others(plan, result)
            on_result(plan.number, result.folder, plan.order)


def _plan(request: EvaluationRequest, tasks: Sequence[LoadedTask]) -> Iterator[PlannedTask]:
    """Each target with each task, target by target."""
    runs = [run_of(target) for target in request.targets]
    configs = [None if run is None else run_config(run) for run in runs]
    first = next((one for one in configs if one is not None), None)
    for number, (target, own) in enumerate(zip(request.targets, configs, strict=True)):
        name = loading_config(target.config).model.model_name_or_path
        same = first is not None and first.model.model_name_or_path == name
        config = own or (first if same else None)
        loading = loading_of(target, None if config is None else config.data.template)
        source = resolve_model(loading.model.model_name_or_path, loading)
        tokenizer = load_tokenizer(source, loading)
        template = loading.data.template or target.template
        template = str(tokenizer.chat_template or template or "")
        rendering = hashlib.sha256(f"task {template}".encode()).hexdigest()
        plan = plan_base(loading)
        for order, task in enumerate(tasks):
            yield PlannedTask(
                number,
                target,
                loading,
                *places_of(target),
                named_target(target, source.path, rendering),
                EvaluatedData((task.name,), task.fingerprint, task.examples),
                {
                    "task": task.name,
                    "n_shot": task.n_shot,
                    "limit": request.limit,
                    "seed": request.seed,
                    "chat_template": bool(template),
                    "lm_eval": version("lm-eval"),
                    "device": plan.device,
                    "dtype": plan.dtype,
                },
                order,
                task,
            )


def _measure(
    plan: PlannedTask, loaded: LoadedTarget, request: EvaluationRequest, progress: Progress
) -> EvaluationResult:
    started = time.monotonic()
    engine = loaded.engine
    if engine is None:
        raise RuntimeError("Tasks need an engine.")
    model = LiveModel(
        engine,
        loaded.adapter,
        loaded.tokenizer,
        lambda what, done, total: progress(f"{what} {plan.task.name} of {plan.target.name}", done, total),
    )
    with EvaluationWriter(plan.place, plan.named, plan.data, plan.settings) as writer:
        set_seed(plan.task, request.seed)
        results = _evaluate(plan, model, request)
        for example in example_results(plan.task, results):
            writer.example(example)
        values = metric_values(plan.task, results)
        if not values:
            raise EvaluationError(f"The task {plan.task.name} gave no finite number.")
        return writer.finish(values, time.monotonic() - started, model.tokens)


def _evaluate(plan: PlannedTask, model: LiveModel, request: EvaluationRequest) -> dict[str, object]:
    """Run lm-eval, and attribute errors to the task."""
    chat = bool(plan.settings["chat_template"])
    try:
        with hub_access(request.hub):
            return dict(
                evaluate(
                    lm=model,
                    task_dict=plan.task.loaded,
                    limit=request.limit,
                    bootstrap_iters=BOOTSTRAPS,
                    log_samples=True,
                    apply_chat_template=chat,
                    fewshot_as_multiturn=chat,
                )
            )
    except FAULTS as error:
        if isinstance(error, EvaluationError):
            raise
        raise EvaluationError(
            f"The task {plan.task.name} failed: {type(error).__name__}: {first_line(error)}"
        ) from error


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
