"""Kernels: pure functions on tensors, each tested against a plain reference."""
