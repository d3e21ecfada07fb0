"""Separates a model's text into reasoning, tool calls and the answer while it is generated. No torch."""
