"""Errors of evaluations."""

from __future__ import annotations

from llf_core.user_error import BAD_CONFIG, UserError


class EvaluationError(UserError, ValueError):
    """An evaluation cannot be made as requested. The message says what was expected."""

    exit_code = BAD_CONFIG
