"""Checks that the models, adapters, data sets and modules in a config exist. Imports no torch."""

from llf_core.config.name_checks.check import check, check_local, required_for_start
from llf_core.config.name_checks.hub import Answer, Question, problem_from_answer, query_hub
from llf_core.config.name_checks.model_folder import CheckResult

__all__ = [
    "Answer",
    "CheckResult",
    "Question",
    "check",
    "check_local",
    "problem_from_answer",
    "query_hub",
    "required_for_start",
]
