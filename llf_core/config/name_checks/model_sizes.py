from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.config_shapes import ModelSizeError, check_sizes
from llf_core.config.name_checks.model_folder import config_of, folder_of
from llf_core.config.name_checks.results import CheckResult
from llf_core.config.problem import Problem

if TYPE_CHECKING:
    from llf_core.config.run_config import RunConfig

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
