"""Comparison of runs."""

from llf_widgets.compare.widget import Compare

__all__ = ["Compare"]
