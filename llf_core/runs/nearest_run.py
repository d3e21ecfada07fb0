"""Suggests the closest run for an unknown id."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.did_you_mean import nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

STAMP = len("20261124-142530")
"""Length of the timestamp in a run id."""


def nearest_run_hint(text: str, known: Sequence[str]) -> str:
    """Suggest the run whose id is most similar, or else whose slug is, as the end of an error message.

    Args:
        text: the user's input.
        known: all ids, oldest first. Of equally similar ones the newest is suggested.

    Returns:
        ` Did you mean …?`; empty if none is similar, see `did_you_mean.nearest`.
    """
    newest = tuple(reversed(known))
    named: dict[str, str] = {}
    for one in newest:
        named.setdefault(one[STAMP + 1 :], one)
    meant = nearest(text, newest) or named.get(nearest(text, named) or "")
    return f" Did you mean {meant}?" if meant else ""
