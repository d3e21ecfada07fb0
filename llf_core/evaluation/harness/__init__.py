"""Benchmarks of lm-evaluation-harness (the package lm-eval) over the chat's engine."""
