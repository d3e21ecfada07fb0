"""Checks whether this version of LLF still accepts a run's stored config."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from llf_core.redaction.url_secrets import missing_url_secrets

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config import Problem, RunConfig
    from llf_core.runs import RunFolder


def check_stored(folder: RunFolder, what: str, env: Mapping[str, str] | None = None) -> None:
    """Check that a run's `config.yaml` is still valid and can be started, before anything is changed."""
    config = stored_config(folder, what)
    check_urls(config.flat(), what, env)
    check_place(config)


def check_place(config: RunConfig) -> None:
    """Check that a config can be started where it says.

    Raises:
        ConfigError: it cannot; the message has the reason.
    """
    from llf_core.config import ConfigError
    from llf_core.launch.launchers import launch_problem

    problem = launch_problem(config)
    if problem is not None:
        raise ConfigError((problem,))


def stored_config(folder: RunFolder, what: str) -> RunConfig:
    """The config of a run; `what` is the verb of the message, such as `resume`.

    Raises:
        ConfigError: the config has errors; it holds each with file, line and fix.
    """
    from llf_core.config import ConfigError, validate

    report = validate(folder.config)
    errors = [problem for problem in report.problems if problem.severity == "error"]
    if errors:
        raise ConfigError(tuple(replace(one, message=_told(one, folder, what)) for one in errors))
    return report.accepted()


def check_urls(values: Mapping[str, object], what: str, env: Mapping[str, str] | None = None) -> None:
    """Check that the environment has the credentials of the URLs in a stored config.

    Raises:
        ConfigError: `LLF_URLS` lacks a URL with credentials; it names the key.
    """
    from llf_core.config import ConfigError, Problem

    untold = missing_url_secrets(values, {**os.environ, **(env or {})}, what)
    if untold:
        raise ConfigError(tuple(Problem("unresolved", key, values[key], told) for key, told in untold.items()))


def _told(problem: Problem, folder: RunFolder, what: str) -> str:
    place = f"{folder.config}{f' (line {problem.line})' if problem.line else ''}"
    fixes = " or ".join(f"{fix.label[:1].lower()}{fix.label[1:]}" for fix in problem.fixes)
    how = f"In {place}: {fixes}. Then {what}" if fixes else f"Fix it in {place}, then {what}"
    return f"{problem.message} This version of LLF does not accept the config of this run. {how} again."
