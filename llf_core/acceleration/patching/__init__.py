"""Replaces modules of a loaded model by faster ones, and verifies that they compute the same."""
