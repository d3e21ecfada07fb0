"""The keys that decide which parameters are trained: those of the model and the method."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.field_specs import fields

if TYPE_CHECKING:
    from llf_core.config.run_config import Report

SECTIONS, OWNERS = {"model", "method"}, ("method.", "modifier.")
"""Sections of the config, and plug-ins whose options decide what is trained."""


def trained_keys() -> tuple[str, ...]:
    """Keys that decide what is trained, so that views make their table of layers again only for these."""
    return tuple(
        spec.key
        for spec in fields()
        if (spec.owner or "").startswith(OWNERS) or (spec.owner is None and spec.section in SECTIONS)
    )


def only_trained_keys(report: Report) -> Report:
    """Drop the problems of keys that do not decide what is trained: a missing data set, for example.

    The table of trained parameters and evaluations of a model need no more of a config. Unknown keys and problems of
    the whole file stay.
    """
    others = {spec.key for spec in fields()} - set(trained_keys())
    return report.with_problems(problem for problem in report.problems if problem.key not in others)
