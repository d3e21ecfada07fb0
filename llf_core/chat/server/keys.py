"""API keys: from environment variables, or generated. None is ever in an argument or a file."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

from llf_core.user_error import BAD_CONFIG, UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

MIN_CHARACTERS = 16
"""Minimum length of a key if other machines reach the server."""


class KeyRefusedError(UserError):
    """An API key is missing or cannot be used."""

    exit_code = BAD_CONFIG


def keys_of(variables: Sequence[str], *, exposed: bool) -> list[str]:
    """Read API keys from environment variables, and remove these, so that no child process inherits them.

    Args:
        exposed: whether other machines reach the server, so that keys need `MIN_CHARACTERS`.

    Raises:
        KeyRefusedError: a variable is missing, or its key is too short or not printable ASCII without blanks.
    """
    keys = []
    for variable in variables:
        key = os.environ.get(variable, "")
        if not key:
            raise KeyRefusedError(f"The environment variable {variable[:80]!r} is not set.", "Set it to the API key.")
        if not key.isascii() or not key.isprintable() or " " in key:
            raise KeyRefusedError(
                f"The API key in {variable} has a blank or a character that no header can hold.",
                "Expected ASCII letters, digits and signs.",
            )
        if exposed and len(key) < MIN_CHARACTERS:
            raise KeyRefusedError(
                f"The API key in {variable} has {len(key)} characters. Expected at least {MIN_CHARACTERS} where other "
                "machines reach the server."
            )
        keys.append(key)
    for variable in variables:
        os.environ.pop(variable, None)
    return keys


def new_key() -> str:
    """A new API key with 256 random bits."""
    return f"llf-{secrets.token_urlsafe(32)}"
