"""Which run may have been meant by an id that no run has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.did_you_mean import nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

STAMP = len("20261124-142530")
"""Characters of an id that say when its run was made."""


def near_run(text: str, known: Sequence[str]) -> str:
    """The newest run whose id, or the part of it behind the time, is like a text: ` Did you mean …?`; empty for none.

    Args:
        text: what was typed.
        known: all ids, oldest first.
    """
    newest = tuple(reversed(known))
    named: dict[str, str] = {}
    for one in newest:
        named.setdefault(one[STAMP + 1 :], one)
    meant = nearest(text, newest) or named.get(nearest(text, named) or "")
    return f" Did you mean {meant}?" if meant else ""
