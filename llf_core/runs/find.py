"""Resolves abbreviated run ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.did_you_mean import listed
from llf_core.runs.folder import check_run_id, home, run_ids
from llf_core.runs.nearest_run import STAMP, nearest_run_hint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

ELLIPSIS, MIN_SUFFIX = "…", 3


def find_run(
    text: str,
    folder: Path | None = None,
    *,
    binned: bool = False,
    other_names: Callable[[], Iterable[str]] = tuple,
) -> str:
    """Resolve a text to a run id: an id, a prefix, prefix and suffix with `…` or `...` between, or `last`, the newest.

    Args:
        other_names: further names to suggest if no run matches, such as models; called only then.

    Raises:
        ValueError: no run matches, or several do; the message names those that match, or the closest id.
    """
    known, place = run_ids(folder, binned=binned), (folder or home()) / ("bin" if binned else "runs")
    if text == "last":
        if not known:
            raise ValueError(f"No run in {place} yet.")
        return known[-1]
    if text in known:
        return text
    begin, _, end = text.replace("...", ELLIPSIS).partition(ELLIPSIS)
    matching = [one for one in known if text and one.startswith(begin) and one.endswith(end)]
    if len(matching) > 1:
        raise ValueError(f"{len(matching)} runs match {text}: {listed(matching)}. Give more characters of one id.")
    if matching:
        return matching[0]
    mean = nearest_run_hint(text, known, other_names())
    if not mean:
        check_run_id(text)
    raise ValueError(f"No run matches {text!r} in {place}.{mean}")


def short_id(run_id: str, known: Sequence[str]) -> str:
    """Abbreviate an id to its timestamp, plus its suffix if several runs share that second; `find_run` resolves it."""
    stamp = run_id[:STAMP]
    same = [one for one in known if one.startswith(stamp) and one != run_id]
    if not same:
        return stamp
    for length in range(MIN_SUFFIX, len(run_id) - STAMP):
        if not any(one.endswith(run_id[-length:]) for one in same):
            return f"{stamp}{ELLIPSIS}{run_id[-length:]}"
    return run_id
