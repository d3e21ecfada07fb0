"""The fast path: pure functions on tensors, each with a plain reference in its test, and their installation."""
