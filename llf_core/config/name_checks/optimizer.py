"""Checks that the packages of the optimizer are installed, and that it can train the model's weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.name_checks.adapters import model_shapes
from llf_core.config.name_checks.results import CheckResult
from llf_core.config.problem import Fix, Problem
from llf_core.config.registry import method_of, optimizer_of
from llf_core.config.rules.optimizers import install_command, missing_packages

if TYPE_CHECKING:
    from llf_core.config.run_config import RunConfig


def check_optimizer(config: RunConfig) -> CheckResult:
    """Check the selected optimizer against this environment and the shapes of a local model's weights.

    Args:
        config: the config.

    Returns:
        A warning about a missing package, which is an error when a run starts; an error about weights that the
        optimizer cannot train.

    Raises:
        OSError: a weight file of the model cannot be read.
    """
    declaration, found = optimizer_of(config), []
    if missing := missing_packages(config):
        message = f"{declaration.label} needs {missing[0]}, which is not installed. {install_command(config)}"
        fix = Fix("Use AdamW", {"optim": None, **({declaration.switch: None} if declaration.switch else {})})
        found.append(Problem("unresolved", "optim", config.optimizer.optim, message, (fix,), "warning"))
    shapes = None if method_of(config).adapter or declaration.check_shapes is None else model_shapes(config)
    problem = declaration.check_shapes(config, shapes) if declaration.check_shapes and shapes else None
    return CheckResult((*found, problem) if problem else tuple(found))
