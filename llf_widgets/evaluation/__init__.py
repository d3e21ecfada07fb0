"""Evaluation of models, side by side."""

from llf_widgets.evaluation.widget import Evaluate

__all__ = ["Evaluate"]
