"""Measures targets on tasks of lm-eval."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

import jinja2
from lm_eval.evaluator import evaluate

from llf_core.chat.base_model import plan_base
from llf_core.chat.target import loading_config
from llf_core.evaluation.errors import EvaluationError
from llf_core.evaluation.harness.hub_access import hub_access
from llf_core.evaluation.harness.live_model import LiveModel
from llf_core.evaluation.harness.load_tasks import load_tasks, set_seed
from llf_core.evaluation.harness.task_results import example_results, metric_values
from llf_core.evaluation.loaded_targets import loaded_targets
from llf_core.evaluation.planned_result import (
    PlannedResult,
    keep_for_others,
    known_result,
    loading_of,
    named_target,
    places_of,
)
from llf_core.evaluation.target_places import run_of
from llf_core.models.errors import first_line
from llf_core.models.resolve import resolve_model
from llf_core.models.tokenizer import load_tokenizer
from llf_core.runs.config_file import run_config
from llf_core.runs.evaluation_writer import EvaluationWriter
from llf_core.runs.evaluations import EvaluatedData

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

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
