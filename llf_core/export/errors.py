from __future__ import annotations

from llf_core.user_error import UserError


class ExportError(UserError, ValueError):
    """A model could not be exported, or what was written differs from it. Nothing is left at the destination."""
