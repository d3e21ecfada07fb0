"""Whether the config that a run was made with is still accepted, which a later version of LLF may refuse."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from llf_core.redaction.url_secrets import missing_url_secrets

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config import Problem
    from llf_core.runs import RunFolder


def check_stored(folder: RunFolder, what: str, env: Mapping[str, str] | None = None) -> None:
    """Refuses a run whose `config.yaml` has errors by now, before anything of the run is changed.

    It is refused too where an address was given with a password or a key that the environment does not tell.

    Args:
        folder: the run.
        what: what is to be done with it: `resume`.
        env: environment variables besides this process's own.

    Raises:
        ConfigError: each problem with the file, the line and what to change there.
    """
    from llf_core.config import ConfigError, Problem, validate

    report = validate(folder.config)
    errors = [problem for problem in report.problems if problem.severity == "error"]
    if errors:
        raise ConfigError(tuple(replace(one, message=_told(one, folder, what)) for one in errors))
    values = report.accepted().flat()
    untold = missing_url_secrets(values, {**os.environ, **(env or {})}, what)
    if untold:
        raise ConfigError(tuple(Problem("unresolved", key, values[key], told) for key, told in untold.items()))


def _told(problem: Problem, folder: RunFolder, what: str) -> str:
    place = f"{folder.config}{f' (line {problem.line})' if problem.line else ''}"
    fixes = " or ".join(f"{fix.label[:1].lower()}{fix.label[1:]}" for fix in problem.fixes)
    how = f"In {place}: {fixes}. Then {what}" if fixes else f"Mend it in {place}, then {what}"
    return f"{problem.message} This version of LLF refuses the config of this run. {how} again."
