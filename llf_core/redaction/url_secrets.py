"""URLs with credentials: stored without them in the run, passed in full to its processes by environment variable."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from llf_core.redaction.redact_text import MARK, redact

if TYPE_CHECKING:
    from collections.abc import Mapping

URLS_VARIABLE = "LLF_URLS"
"""Environment variable with the full URLs, separated by spaces."""


def split_url_secrets(values: Mapping[str, object]) -> tuple[dict[str, Any], list[str]]:
    """Separate URL credentials from config values.

    Args:
        values: config values by key: strings, in which commas separate several, or lists of them.

    Returns:
        The changed values with redacted URLs, by key, and the full URLs for the environment.
    """
    changes: dict[str, object] = {}
    whole: list[str] = []
    for key, value in values.items():
        parts = [value] if isinstance(value, str) else value if isinstance(value, list | tuple) else []
        texts = [one.strip() for part in parts if isinstance(part, str) for one in part.split(",")]
        found = [one for one in texts if "://" in one and _without_secrets(one) != one]
        if found:
            whole += found
            redacted = [
                ",".join(map(_without_secrets, one.split(","))) if isinstance(one, str) else one for one in parts
            ]
            changes[key] = redacted[0] if isinstance(value, str) else redacted
    return changes, whole


def restore_url(address: str) -> str:
    """Return the first full URL that matches a redacted one.

    Args:
        address: URL as stored in the run; one without `***` is returned unchanged.

    Raises:
        LookupError: the environment variable `LLF_URLS` does not contain it; the text is a sentence for the user.
    """
    if MARK not in address:
        return address
    for one in os.environ.get(URLS_VARIABLE, "").split():
        if _without_secrets(one) == address:
            return one
    raise LookupError(_missing_message(address))


def missing_url_secrets(values: Mapping[str, object], environment: Mapping[str, str], what: str) -> dict[str, str]:
    """Find redacted URLs in a config whose credentials are missing: by key, a sentence about the first one.

    Args:
        values: config values by key: strings, in which commas separate several, or lists of them.
        what: verb for the message, for example `resume`.
    """
    known = {_without_secrets(one) for one in environment.get(URLS_VARIABLE, "").split()}
    found: dict[str, str] = {}
    for key, value in values.items():
        parts = [value] if isinstance(value, str) else value if isinstance(value, list | tuple) else []
        texts = [one.strip() for part in parts if isinstance(part, str) for one in part.split(",")]
        lacking = [one for one in texts if "://" in one and MARK in one and one not in known]
        if lacking:
            found[key] = _missing_message(lacking[0], what)
    return found


def _without_secrets(text: str) -> str:
    return redact(text, named=False)


def _missing_message(address: str, what: str = "resume") -> str:
    return (
        f"{address} was given with a password or a key, which is not stored with the run. Set the environment variable "
        f"{URLS_VARIABLE} to the whole address (several with blanks between them), then {what}."
    )
