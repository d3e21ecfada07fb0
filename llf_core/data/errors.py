"""Errors in data: in a whole data set, or in a single example."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.user_error import BAD_CONFIG, UserError

if TYPE_CHECKING:
    from llf_core.config.declaration import DataKind


class DataError(UserError, ValueError):
    """A data set that cannot be used as configured."""

    exit_code = BAD_CONFIG


class EntryError(DataError):
    """An entry of `dataset_info.json` that cannot be used."""


class OtherKindError(DataError):
    """A data set of another kind (`kind`) than the stage trains on."""

    def __init__(self, message: str, kind: DataKind) -> None:
        super().__init__(message)
        self.kind = kind


class BadExample(ValueError):  # noqa: N818 - it is counted and named in the report, no error of the run
    """An example that cannot be trained on. Its text is the reason, as the report shows it."""
