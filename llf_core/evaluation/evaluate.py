"""Measures models on data: losses of the expected answers, and metrics of generated ones.

`python -m llf_core.evaluation.evaluate REQUEST` is the process with the models; it prints the folder of each result.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, TypeVar

from llf_core.chat.target import Target, find_target
from llf_core.evaluation import worker_process
from llf_core.evaluation.errors import EvaluationError, check_whole
from llf_core.evaluation.harness.load_tasks import check_lm_eval, task_name
from llf_core.evaluation.judge.judge import Endpoint
from llf_core.evaluation.loaded_targets import run_of
from llf_core.evaluation.request import MAX_NEW_TOKENS, SHOTS_SEED, VALIDATION, EvaluationRequest
from llf_core.launch.start import write_rows
from llf_core.metrics import METRICS, metric_sources
from llf_core.runs.evaluations import read_result
from llf_core.runs.folder import home_folder
from llf_core.runs.uploads import UPLOADS
from llf_core.user_functions.function_source import write_code

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from llf_core.evaluation.judge.judge import Judge
    from llf_core.evaluation.worker_process import OnStart, Progress
    from llf_core.launch import Run
    from llf_core.runs import RunFolder
    from llf_core.runs.evaluations import EvaluationResult
    from llf_core.user_functions.function_kind import UserFunction

MODULE = "llf_core.evaluation.evaluate"
T = TypeVar("T")


class _MeasuredItem(TypedDict):
    """A complete result, printed by the child process; `task` is -1 for data."""

    target: int
    task: int
    folder: str


def evaluate(  # noqa: PLR0913 - what is measured, on what and how
    targets: Iterable[str | Path | Run | RunFolder | Target],
    on: object = None,
    *,
    metrics: Sequence[str | UserFunction] = (),
    tasks: Sequence[str | Path] = (),
    n_shot: int | None = None,
    seed: int = SHOTS_SEED,
    hub: bool = False,
    limit: int | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
    dataset_dir: str | Path | None = None,
    judge: Judge | None = None,
    home: Path | str | None = None,
    trust: bool = False,
    again: bool = False,
    progress: Progress = worker_process.no_progress,
    on_result: Callable[[int, EvaluationResult], object] | None = None,
    on_start: OnStart = worker_process.no_item,
) -> list[EvaluationResult]:
    """Measure models on data, in a child process that holds one base model at a time and its adapters.

    Every result on data has the losses of the expected answers: loss, perplexity, bits per byte and token accuracy.
    With `metrics`, the model also answers each prompt greedily, and the answers are scored. A result is stored as soon
    as it is complete. What was measured before is not measured again, unless `again` is true.

    With `judge`, another model or an endpoint compares the answers of each target with those of the first one, in both
    orders; the verdicts are stored beside the results (`llf_core.runs.evaluations`).

    With `tasks`, benchmarks of lm-eval are measured too, or alone if `on` is left out; each is a result of its own.

    Examples are rendered, masked and truncated as by the run that a target is of. The first run among the targets
    decides for models without a run.

    Args:
        targets: models, see `llf_core.chat.target.find_target`. A single name needs no list, nor one of `metrics` and
            `tasks`.
        on: the data: a name of `dataset_info.json`, a file, a folder or a hub id; several of them, also separated by
            commas, each read once; rows (a list of dicts, a DataFrame or a `datasets.Dataset`); or `"validation"`, the
            validation data of the first target that is a run. None for that, or for no data if there are tasks.
        metrics: metrics of generated answers: names of built-in ones or of plug-ins, functions under `@llf.metric` or
            their names, or `FILE.py:FUNCTION`.
        tasks: names of tasks, see `llf_core.evaluation.harness.load_tasks.load_tasks`, or files and folders of tasks.
        n_shot: number of solved examples in the prompt of a task; None for the task's own.
        hub: whether the data of tasks may be downloaded from the Hugging Face Hub.
        limit: maximum number of examples of each data set and task, taken from the beginning; None for all.
        max_new_tokens: maximum number of tokens of an answer, at least 1; tasks have their own.
        dataset_dir: folder of named data sets; None for that of the run.
        judge: the judge, see `llf_core.evaluation.judge.judge.judge_of`; None for none.
        home: `LLF_HOME`; None for the environment's.
        trust: whether to allow Python code of models that has not been allowed yet.
        progress: called with a description, the number done and the total; an exception in it ends the process.
        on_result: called with the number of a target and each of its results when it is complete, earlier ones first;
            None if nobody waits.
        on_start: called with a function that ends the process, for another thread; `evaluate` then raises
            `RuntimeError`.

    Raises:
        EvaluationError: there are no targets, a number is out of range, there is no data to measure on, metrics have no
            answers to score or a judge nothing to compare, or lm-eval is not installed.
    """
    metrics, tasks = _several(metrics), _several(tasks)
    found = tuple(one if isinstance(one, Target) else find_target(one, home_path(home)) for one in _several(targets))
    if not found:
        raise EvaluationError("There is nothing to measure.", "Name at least one run or model.")
    for name, value, least in (("limit", limit, 1), ("max_new_tokens", max_new_tokens, 1), ("n_shot", n_shot, 0)):
        if value is not None:
            check_whole(name, value, least)
    if tasks:
        check_lm_eval()
    names = () if on is None and tasks else _names(VALIDATION if on is None else on, home)
    if names == (VALIDATION,) and not any(one.run_id for one in found):
        raise EvaluationError(
            "None of the targets is a run, so there is no validation data.",
            "Name the data: a name, a file, or rows.",
        )
    _check_answers(found, names, metrics, judge)
    folder = None if dataset_dir is None else str(Path(dataset_dir).expanduser().absolute())
    functions = METRICS.by_name(metrics)
    sources = metric_sources(functions, functions)
    request = EvaluationRequest(
        found,
        names,
        tuple(functions),
        limit,
        max_new_tokens,
        folder,
        None,
        again,
        tuple(dict.fromkeys(task_name(one) for one in tasks)),
        n_shot,
        seed,
        hub,
        judge,
    )
    results: dict[tuple[int, int], EvaluationResult] = {}

    def receive(value: _MeasuredItem) -> None:
        result = read_result(Path(value["folder"]))
        results[value["task"], value["target"]] = result
        if on_result is not None:
            on_result(value["target"], result)

    with tempfile.TemporaryDirectory(prefix="llf-metrics-") as place:
        if sources:
            request = replace(request, code=place)
            write_code(Path(place), sources)
        worker_process.run_in_child(
            MODULE,
            request.json(),
            home=home_path(home),
            progress=progress,
            trust=trust,
            of=next((one.run_id for one in found if one.run_id), None),
            on_item=receive,
            on_start=on_start,
        )
    return [results[key] for key in sorted(results)]


def with_base(targets: Iterable[str | Path | Run | RunFolder | Target], home: Path | str | None = None) -> list[Target]:
    """Put the base model of each run before the targets, if it is not among them."""
    found = [one if isinstance(one, Target) else find_target(one, home_path(home)) for one in _several(targets)]
    bases: list[Target] = []
    for target in found:
        run = run_of(target, home)
        if run is None:
            continue
        base = find_target(f"{run.path}@base", home_path(home))
        if all((one.config, one.adapter) != (base.config, base.adapter) for one in (*found, *bases)):
            bases.append(base)
    return [*bases, *found]


def home_path(home: Path | str | None) -> Path | None:
    """`LLF_HOME` as a path; None for the environment's."""
    return None if home is None else Path(home)


def _several(given: Iterable[T]) -> tuple[T, ...]:
    """The given values, of which a single name or path needs no list."""
    return (given,) if isinstance(given, str | Path) else tuple(given)  # type: ignore[return-value]


def _check_answers(
    targets: Sequence[Target], names: Sequence[str], metrics: Sequence[object], judge: Judge | None
) -> None:
    if metrics and not names:
        raise EvaluationError(
            "Metrics score answers to the prompts of data, and tasks have their own metrics.", "Name the data."
        )
    if judge is not None and (len(targets) < 2 or not names):  # noqa: PLR2004 - a judge compares two
        raise EvaluationError(
            "A judge compares the answers of two models to the same prompts.",
            "Name a second target and data with prompts.",
        )


def _names(on: object, home: Path | str | None) -> tuple[str, ...]:
    """Names of data sets; rows are written to a file."""
    listed = [on] if isinstance(on, Path) else on
    if isinstance(listed, str):
        found = tuple(name.strip() for name in listed.split(",") if name.strip())
    elif isinstance(listed, list | tuple) and listed and all(isinstance(one, str | Path) for one in listed):
        found = tuple(str(one.expanduser().absolute()) if isinstance(one, Path) else one for one in listed)
    else:
        return (str(write_rows(on, home_folder(home) / UPLOADS)[0]),)
    found = tuple(dict.fromkeys(found))  # examples that are read twice would make the interval too narrow
    if not found:
        raise EvaluationError("There is no data set to measure on.", "Name one, or leave it out for validation data.")
    if VALIDATION in found and len(found) > 1:
        raise EvaluationError(f"{VALIDATION} stands beside other data sets.", "Measure it in an evaluation of its own.")
    return found


def main() -> None:
    """Measure, and print the results as lines of JSON: the child process of `evaluate`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("request")
    asked = parser.parse_args()

    def make(progress: Progress, item: Callable[[_MeasuredItem], object]) -> None:
        request = EvaluationRequest.read(asked.request)

        folders: dict[int, Path] = {}
        if request.judge is not None and request.judge.target is None:
            Endpoint(request.judge).check()

        def complete(number: int, folder: Path, task: int = -1) -> None:
            if task < 0:
                folders[number] = folder
            item({"target": number, "task": task, "folder": str(folder)})

        if request.on:
            from llf_core.evaluation.measure_targets import measure_targets

            measure_targets(request, progress, complete)
        if request.judge is not None:
            from llf_core.evaluation.judge.judge_results import judge_results

            judge_results(request.judge, [folders[number] for number in sorted(folders)], progress)
        if request.tasks:
            from llf_core.evaluation.harness.measure_tasks import measure_tasks

            measure_tasks(request, progress, complete)

    worker_process.print_result(make, of=None)


if __name__ == "__main__":
    main()
