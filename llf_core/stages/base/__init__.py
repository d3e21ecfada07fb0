"""Shared parts of all stages: context, training loop, and the retry after out of memory."""
