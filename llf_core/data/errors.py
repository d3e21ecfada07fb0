"""What can be wrong with data: with a whole set, or with one example of it."""

from llf_core.user_error import BAD_CONFIG, UserError


class DataError(UserError, ValueError):
    """A data set that cannot be used as asked."""

    exit_code = BAD_CONFIG


class OtherKindError(DataError):
    """A data set that holds something else than the stage learns from.

    Attributes:
        kind: what it holds, one of `llf_core.data.formats.conversation.KINDS`.
    """

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class BadExample(ValueError):  # noqa: N818 - it is counted and named in the report, no error of the run
    """One example that cannot be learned from; its text is the reason that the report gives."""
