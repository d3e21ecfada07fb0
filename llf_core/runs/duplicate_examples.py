"""What is said of data in which many examples are copies of earlier ones, by everyone who says it."""

from __future__ import annotations

SHARE = 0.03
"""Of the examples to train on, from which on copies are worth a word."""


def duplicates_warning(copies: int, examples: int) -> str | None:
    """A sentence on the copies among the examples to train on; None where they are few.

    Args:
        copies: examples of the same tokens as an earlier one.
        examples: all of them.
    """
    if copies <= SHARE * examples:
        return None
    return (
        f"{copies:,} of the {examples:,} examples to train on are copies of earlier ones, and are trained on as often "
        "as they stand there."
    )
