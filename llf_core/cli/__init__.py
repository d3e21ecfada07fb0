"""The `llf` command: thin, one function a command. What a command does is in the package that it names."""

from llf_core.cli.application import app, main

__all__ = ["app", "main"]
