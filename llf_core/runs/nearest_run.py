"""Suggests the closest run for an unknown id."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.did_you_mean import nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

STAMP = len("20261124-142530")


def nearest_run_hint(text: str, known: Sequence[str], others: Iterable[str] = ()) -> str:
    """` Did you mean …?` with the run whose id or slug is most similar; empty if none is, see `did_you_mean.nearest`.

    Args:
        known: all ids, oldest first; the newest is preferred.
        others: further names, such as models.
    """
    newest = tuple(reversed(known))
    named = {one: one for one in newest}
    for one in newest:
        named.setdefault(one[STAMP + 1 :], one)
    meant = nearest(text, [*named, *others])
    return f" Did you mean {named.get(meant, meant)}?" if meant else ""
