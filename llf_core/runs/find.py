"""Which run somebody means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.did_you_mean import listed
from llf_core.runs.folder import check_run_id, home, run_ids
from llf_core.runs.nearest_run import STAMP, near_run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

BETWEEN, LEAST_END = "…", 3


def find_run(text: str, folder: Path | None = None, *, binned: bool = False) -> str:
    """The id that a text means: a run's id, the beginning of one, beginning and end with `…` between, or `last`.

    Args:
        text: what was typed.
        folder: `LLF_HOME` where it is not the environment's.
        binned: whether it is one of those in the bin.

    Raises:
        ValueError: there is no such run, or several begin so; a sentence with the nearest ones.
    """
    known, place = run_ids(folder, binned=binned), (folder or home()) / ("bin" if binned else "runs")
    if text == "last":
        if not known:
            raise ValueError(f"No run in {place} yet.")
        return known[-1]
    if text in known:
        return text
    begin, _, end = text.replace("...", BETWEEN).partition(BETWEEN)
    begun = [one for one in known if text and one.startswith(begin) and one.endswith(end)]
    if len(begun) > 1:
        raise ValueError(f"{len(begun)} runs match {text}: {listed(begun)}. Expected more of one id.")
    if begun:
        return begun[0]
    mean = near_run(text, known)
    if not mean:
        check_run_id(text)
    raise ValueError(f"There is no run {text!r} in {place}.{mean}")


def short_id(run_id: str, known: Sequence[str]) -> str:
    """What tells an id from the others: when the run was made, and its end where others were made in that second.

    Args:
        run_id: the id.
        known: all ids.
    """
    stamp = run_id[:STAMP]
    same = [one for one in known if one.startswith(stamp) and one != run_id]
    if not same:
        return stamp
    for length in range(LEAST_END, len(run_id) - STAMP):
        if not any(one.endswith(run_id[-length:]) for one in same):
            return f"{stamp}{BETWEEN}{run_id[-length:]}"
    return run_id
