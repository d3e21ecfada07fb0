"""The warning about duplicate training examples, shared by all views."""

from __future__ import annotations

SHARE = 0.03


def duplicates_warning(copies: int, examples: int) -> str | None:
    """Warn about `copies` of earlier training examples, which the model memorizes (arXiv 2107.06499); None if few."""
    if copies <= SHARE * examples:
        return None
    duplicates = "is a duplicate of an earlier one" if copies == 1 else "are duplicates of earlier ones"
    return f"{copies:,} of the {examples:,} training examples {duplicates}, and each copy is trained on."
