"""The checks of a config that read files or ask a hub."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.config.field_specs import fields, is_used
from llf_core.config.name_checks.adapters import check_adapters, model_shapes
from llf_core.config.name_checks.architecture_properties import check_architecture
from llf_core.config.name_checks.data_sets import check_datasets
from llf_core.config.name_checks.hub import SECONDS, problem_from_answer, query_hub
from llf_core.config.name_checks.model_folder import CheckResult, config_of, folder_of
from llf_core.config.name_checks.models import check_model_terms, check_models, check_paths
from llf_core.config.name_checks.modules import KEYS, check_modules
from llf_core.config.name_checks.output_folder import check_output_dir
from llf_core.config.new_tokens import FILE_KEY, requested_tokens
from llf_core.config.paths import expanded, is_there
from llf_core.config.registry import method_of, optimizer_of
from llf_core.config.rule import Problem
from llf_core.config.weight_shapes import ModelSizeError, check_sizes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from llf_core.config.field_specs import FieldSpec
    from llf_core.config.run_config import Report, RunConfig


HUB_REWARDS = {"lora", "full"}
"""Values of `reward_model_type` whose `reward_model` is a model."""


def check_local(
    config: RunConfig, base: Path | None = None, runs: Iterable[str] = (), home: Path | None = None
) -> CheckResult:
    """Check the names in a config without network access. Of weights, only the headers of the files are read.

    Args:
        base: the folder that relative paths start from. Default: the working directory.
        runs: ids of runs, which a reward model may be.
        home: `LLF_HOME`, whose own folders may not receive a result; None if it is not known.

    Returns:
        Problems, and questions for `query_hub`.
    """
    folders = (Path.cwd() if base is None else base, Path.cwd())
    found = check_output_dir(config, home) + check_architecture(config) + check_model_sizes(config)
    found += check_adapters(config) + check_optimizer(config) + check_described_tokens(config)
    for spec in _used_fields(config):
        if spec.path in {"model", "adapters", "data"}:
            found += check_paths(config, spec)
        if spec.path in {"model", "adapters"}:
            found += check_models(config, spec, folders, runs) + check_model_terms(config, spec)
        elif spec.path == "data":
            found += check_datasets(config, spec, folders)
        elif spec.key in KEYS:
            found += check_modules(config, spec)
    return found


def check(
    report: Report,
    *,
    runs: Iterable[str] = (),
    home: Path | None = None,
    starting: bool = False,
    seconds: float = SECONDS,
) -> Report:
    """Check the names in a config, on this machine and on the hub, and add the problems to the report of `validate`.

    Args:
        runs: ids of runs, which a reward model may be.
        home: see `check_local`.
        starting: whether a run is about to start on this machine: a missing file is then an error, not a warning.
        seconds: time limit of the hub's answers, finite; 0 does not query the hub.
    """
    wrong = {problem.key for problem in report.problems if problem.severity == "error"}
    found = check_local(report.config, report.base, runs, home)
    answers = query_hub(found.questions, seconds) if found.questions and seconds else {}
    from_hub = (problem_from_answer(question, answer) for question, answer in answers.items())
    new = [problem for problem in (*found.problems, *from_hub) if problem and problem.key not in wrong]
    problems = [*report.problems, *(replace(one, line=report.lines.get(one.key)) for one in new)]
    return report.with_problems([required_for_start(one) for one in problems] if starting else problems)


def required_for_start(problem: Problem) -> Problem:
    """Turn the warning about a missing file or folder into an error, for a run that starts on this machine.

    Module names stay warnings, since the table of modules may be older than the model.
    """
    lacks = problem.kind == "unresolved" and problem.severity == "warning" and problem.key not in KEYS
    return replace(problem, severity="error") if lacks else problem


def _used_fields(config: RunConfig) -> Iterator[FieldSpec]:
    for spec in fields():
        if not is_used(spec, config):
            continue
        if spec.key in {"reward_model", "reward_model_adapters"} and config.get("reward_model_type") not in HUB_REWARDS:
            continue
        yield spec


def check_optimizer(config: RunConfig) -> CheckResult:
    """Check the selected optimizer against the shapes of a local model's weights; not for a method with an adapter."""
    check = optimizer_of(config).check_shapes
    shapes = None if method_of(config).adapter or check is None else model_shapes(config)
    problem = check(config, shapes) if check is not None and shapes else None
    return CheckResult((problem,) if problem else ())


def check_described_tokens(config: RunConfig) -> CheckResult:
    """Check the file of `new_special_tokens_config`; if missing, only a warning: it may be on another machine."""
    path = config.model.new_special_tokens_config
    if not path:
        return CheckResult()
    try:
        requested_tokens(config)
    except ValueError as error:
        missing = not is_there(expanded(path))
        found = Problem(
            "unresolved" if missing else "invalid",
            FILE_KEY,
            path,
            str(error),
            severity="warning" if missing else "error",
            keys=(FILE_KEY,),
        )
        return CheckResult((found,))
    return CheckResult()


KEY = "model_name_or_path"


def check_model_sizes(config: RunConfig) -> CheckResult:
    """Check a local model for sizes that no model has, such as 10^30 hidden values, which would exhaust the memory."""
    folder = folder_of(config.model.model_name_or_path, config.model.cache_dir)
    try:
        check_sizes({} if folder is None else config_of(folder))
    except ModelSizeError as error:
        message = f"{error.message} {error.what_to_do}"
        return CheckResult((Problem("violation", KEY, config.get(KEY), message),))
    return CheckResult()
