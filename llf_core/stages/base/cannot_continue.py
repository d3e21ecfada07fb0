"""Error of a run that cannot continue now, and may be resumed later."""

from __future__ import annotations

from llf_core.user_error import UserError


class StopTraining(UserError):  # noqa: N818 - no error of the program: something outside of it must be mended
    """Training stops with a checkpoint, since something outside the program failed."""
