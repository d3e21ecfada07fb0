from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.name_checks.results import CheckResult
from llf_core.config.new_tokens import FILE_KEY, requested_tokens
from llf_core.config.paths import expanded, is_there
from llf_core.config.problem import Problem

if TYPE_CHECKING:
    from llf_core.config.run_config import RunConfig


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
