"""Entry point of `llf`. It answers `llf models` itself, since building the command line takes three times as long."""

from __future__ import annotations

import gc
import sys

from llf_core import NO_WINDOWS

OBJECTS = 50_000
"""Objects made before a garbage collection. Imports make many and no garbage."""


def main() -> None:
    """Run the command line, see `application.main`, unless it can be answered without building it."""
    if sys.platform == "win32":
        sys.exit(NO_WINDOWS)
    if sys.argv[1:2] == ["models"] and _answered(sys.argv[2:]):
        return
    gc.set_threshold(OBJECTS)
    from llf_core.cli.application import main as run

    run()


def _answered(arguments: list[str]) -> bool:
    """Print the models that words find; False where the command line has to answer instead."""
    words = [one for one in arguments if one != "--json"]
    if any(one.startswith("-") for one in words):
        return False
    from llf_core.cli.model_table import answer
    from llf_core.model_catalog import search_models

    found = search_models(words)
    try:
        if found:
            print(answer(found, "--json" in arguments), flush=True)  # noqa: T201 - the result
    except (OSError, ValueError):  # a closed or full output, or a terminal that lacks a sign
        return False
    return bool(found)
