"""Trains, evaluates and exports language models. Knows nothing of Jupyter."""

__version__ = "0.1.0"
