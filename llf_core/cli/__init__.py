"""The `llf` command: one thin function per command, which calls the package that does the work."""

from llf_core.cli.application import app, main

__all__ = ["app", "main"]
