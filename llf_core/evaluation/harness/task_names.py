"""Names of tasks, as a user writes them. No lm-eval."""

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
"""Tasks of LLaMA-Factory, and lm-eval's of the same data."""


def check_lm_eval() -> None:
    """Check that lm-eval is installed, before a process is started.

    Raises:
        EvaluationError: it is not.
    """
    if find_spec("lm_eval") is None:
        raise EvaluationError("Tasks need lm-eval, which is not installed.", f"Run: {install_command('eval')}")


def task_name(name: str | Path) -> str:
    """A task as a request has it: the path of a file or folder, else lm-eval's name.

    The path is absolute, since another process reads it.

    Args:
        name: name of a task of lm-eval, of LLaMA-Factory or of LLF; or a file or folder: a `Path`, or a text with `/`
            or the suffix `.yaml`.
    """
    path = expanded(name)
    if isinstance(name, Path) or path.suffix in {".yaml", ".yml"} or "/" in name:
        return str(path.absolute())
    return LLAMA_FACTORY.get(str(name), str(name))
