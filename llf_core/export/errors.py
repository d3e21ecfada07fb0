"""The error of an export, in sentences for the person who asked for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.user_error import UserError

if TYPE_CHECKING:
    from llf_core.export.receipt import Receipt


class ExportError(UserError, ValueError):
    """A model could not be exported, or what was written differs from it. Nothing is left at the destination."""


class FailedReceiptError(ExportError):
    """What was written in full precision differs from the live model.

    Args:
        message: which check failed, and what was measured.
        receipt: the receipt, for views that show all checks.
    """

    def __init__(self, message: str, receipt: Receipt) -> None:
        super().__init__(message)
        self.receipt = receipt
