"""What the loader tells while it works."""

import sys


def say(text: str) -> None:
    """One line on stderr: a trainer's goes to log.txt too, and a command's stdout stays its result."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - see above
