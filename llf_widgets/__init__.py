"""Notebook side of LLF."""
