"""A run that cannot go on now, and may later."""

from __future__ import annotations


class StopTraining(Exception):  # noqa: N818 - no error of the program: something outside of it must be mended
    """Training stops where it is, with a checkpoint; both sentences are for the user."""

    def __init__(self, message: str, what_to_do: str) -> None:
        """Takes what happened, and the remedy."""
        super().__init__(f"{message} {what_to_do}")
        self.message = message
        self.what_to_do = what_to_do
