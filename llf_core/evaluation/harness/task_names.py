"""Names of tasks. No lm-eval."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from llf_core.config.paths import expanded
from llf_core.evaluation.errors import EvaluationError
from llf_core.install_command import install_command

LLAMA_FACTORY = {
    "mmlu_test": "mmlu",
    "ceval_validation": "ceval-valid",
    "cmmlu_test": "cmmlu",
}
"""lm-eval's name of LLaMA-Factory's tasks."""


def check_lm_eval() -> None:
    """Check that lm-eval is installed."""
    if find_spec("lm_eval") is None:
        raise EvaluationError("Tasks need lm-eval, which is not installed.", f"Run: {install_command('eval')}")


def task_name(name: str | Path) -> str:
    """Absolute path of a file or folder (a `Path`, or with `/` or `.yaml`), else lm-eval's name of a task."""
    path = expanded(name)
    if isinstance(name, Path) or path.suffix in {".yaml", ".yml"} or "/" in name:
        return str(path.absolute())
    return LLAMA_FACTORY.get(str(name), str(name))
