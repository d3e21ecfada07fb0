from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from llf_core.user_error import BAD_CONFIG, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

INTERRUPTED = 130


class UsageError(UserError):
    """An option or argument that a command cannot use."""

    exit_code = BAD_CONFIG


@contextmanager
def in_a_sentence() -> Iterator[None]:
    """Convert errors of runs and of the system to sentences without a traceback; used as a `with` block.

    Raises:
        UserError: an `OSError`, `RuntimeError` or `ValueError` of the block, as a sentence.
    """
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        raise UserError(_refused(error)) from None
    except (RuntimeError, ValueError) as error:
        raise UserError(str(error)) from None


def _refused(error: OSError) -> str:
    from llf_core.runs.disk_errors import command_message, is_disk_error
    from llf_core.runs.folder import home

    if is_disk_error(error) and error.strerror == os.strerror(error.errno or 0):  # not a sentence of ours already
        return command_message(error, home())
    if error.filename:
        return file_message(error)
    return temporary_folder_message(error) or error.strerror or str(error)


def temporary_folder_message(error: OSError) -> str:
    """Say what to do if `tempfile` finds no folder that can be written, as on a full disk or a read-only system."""
    if not isinstance(error, FileNotFoundError) or "temporary directory" not in (error.strerror or ""):
        return ""
    return f"{error.strerror}. Free disk space, or set TMPDIR to a folder that can be written."


def file_message(error: OSError) -> str:
    """Say which file the system has refused, and why."""
    return f"{error.filename} cannot be opened: {error.strerror}."
