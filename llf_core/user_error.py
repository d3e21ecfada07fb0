"""The base of every error whose text is for the person who started something: what is wrong, and what to do."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

FAILED = 1
"""Exit code of a command or a trainer that failed."""
BAD_CONFIG = 2
"""Exit code where a config, data set or model must be changed first."""


class UserError(Exception):
    """An error with a known cause, reported to the user in sentences and without a traceback.

    Attributes:
        what_to_do: the next step; empty where the message says it already.
        exit_code: of a command or a trainer that it ends: `FAILED` or `BAD_CONFIG`.
    """

    exit_code = FAILED

    def __init__(self, message: str, what_to_do: str = "") -> None:
        super().__init__(message, what_to_do)
        self.message = message
        self.what_to_do = what_to_do

    def __str__(self) -> str:
        return f"{self.message} {self.what_to_do}".strip()

    @property
    def _render_traceback_(self) -> Callable[[], list[str]]:
        """What IPython calls for the lines of an error in a cell: the sentence, without the code that raised it."""
        if sys.exc_info()[1] is not self:
            raise AttributeError("_render_traceback_")
        return f"{type(self).__name__}: {self}".splitlines
