"""Inspection of training data, token by token."""

from llf_widgets.inspect.widget import Inspect

__all__ = ["Inspect"]
