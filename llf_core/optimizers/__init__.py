"""Optimizers that are not built by transformers itself: one file each."""
