"""Declarations of the metrics that score answers."""
