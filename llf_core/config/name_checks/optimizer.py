from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.name_checks.adapters import model_shapes
from llf_core.config.name_checks.results import CheckResult
from llf_core.config.registry import method_of, optimizer_of

if TYPE_CHECKING:
    from llf_core.config.run_config import RunConfig


def check_optimizer(config: RunConfig) -> CheckResult:
    """Check the selected optimizer against the shapes of a local model's weights; not for a method with an adapter."""
    check = optimizer_of(config).check_shapes
    shapes = None if method_of(config).adapter or check is None else model_shapes(config)
    problem = check(config, shapes) if check is not None and shapes else None
    return CheckResult((problem,) if problem else ())
