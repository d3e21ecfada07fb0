"""Pure functions on tensors, each with a plain reference in its test."""
