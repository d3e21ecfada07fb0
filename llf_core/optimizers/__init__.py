"""Optimizers that transformers does not provide, one module each."""
