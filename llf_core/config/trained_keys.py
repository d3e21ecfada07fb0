from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.field_specs import fields

if TYPE_CHECKING:
    from llf_core.config.run_config import Report

SECTIONS, OWNERS = {"model", "method"}, ("method.", "modifier.")
"""Sections of the config, and plug-ins whose options decide what is trained."""


def trained_keys() -> tuple[str, ...]:
    """Keys that decide which parameters are trained."""
    return tuple(
        spec.key
        for spec in fields()
        if (spec.owner or "").startswith(OWNERS) or (spec.owner is None and spec.section in SECTIONS)
    )


def only_trained_keys(report: Report) -> Report:
    """Drop the problems of keys that do not decide what is trained; unknown keys and the file's problems stay."""
    others = {spec.key for spec in fields()} - set(trained_keys())
    return report.with_problems(problem for problem in report.problems if problem.key not in others)
