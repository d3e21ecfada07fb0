"""News of what takes seconds, for a log or a terminal."""

import sys


def say(text: str) -> None:
    """Writes a line to stderr, so that stdout stays the caller's (JSON, for example); a run's log holds both."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - the one place
