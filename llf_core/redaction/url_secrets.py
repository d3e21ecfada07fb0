"""Addresses with a password: a run keeps them without, and its processes get them whole by the environment."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from llf_core.redaction.redact_text import MARK, redact

if TYPE_CHECKING:
    from collections.abc import Mapping

WHOLE = "LLF_URLS"
"""The variable with the whole addresses, blanks between them."""


def taken_out(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What of some values is to be kept in a file, and what the environment has to say in its place.

    Args:
        values: of a config, by key: texts, or lists of texts.

    Returns:
        The values that differ without their secrets, and the whole addresses.
    """
    changes: dict[str, Any] = {}
    whole: list[str] = []
    for key, value in values.items():
        parts = [value] if isinstance(value, str) else value if isinstance(value, list | tuple) else []
        texts = [one.strip() for part in parts if isinstance(part, str) for one in part.split(",")]
        found = [one for one in texts if "://" in one and redact(one) != one]
        if found:
            whole += found
            changes[key] = redact(value) if isinstance(value, str) else [redact(str(one)) for one in parts]
    return changes, whole


def whole_address(address: str) -> str:
    """An address as it was given.

    Args:
        address: as a run keeps it; one without `***` is returned as it is.

    Raises:
        LookupError: the environment does not tell it; a sentence.
    """
    if MARK not in address:
        return address
    for one in os.environ.get(WHOLE, "").split():
        if redact(one) == address:
            return one
    raise LookupError(_untold(address))


def untold_addresses(values: Mapping[str, Any], environment: Mapping[str, str], what: str) -> dict[str, str]:
    """Addresses of a run's config that its processes could not know whole.

    Args:
        values: of the config, by key: texts, or lists of texts.
        environment: of these processes.
        what: what is to be done with the run: `resume`.

    Returns:
        A sentence for each key with such an address.
    """
    known = {redact(one) for one in environment.get(WHOLE, "").split()}
    found: dict[str, str] = {}
    for key, value in values.items():
        parts = [value] if isinstance(value, str) else value if isinstance(value, list | tuple) else []
        texts = [one.strip() for part in parts if isinstance(part, str) for one in part.split(",")]
        lacking = [one for one in texts if "://" in one and MARK in one and one not in known]
        if lacking:
            found[key] = _untold(lacking[0], what)
    return found


def _untold(address: str, what: str = "resume") -> str:
    return (
        f"{address} was given with a password or a key, which a run does not keep. Set the environment variable "
        f"{WHOLE} to the whole address (several with blanks between them), then {what}."
    )
