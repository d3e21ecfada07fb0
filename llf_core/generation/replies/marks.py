"""Finds marks in a text that is still growing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def find_mark(text: str, marks: Iterable[str]) -> tuple[int, str | None]:
    """Position and text of the first mark, the longest of those that begin there; -1 and None without one."""
    found = [(at, -len(mark), mark) for mark in marks if mark and (at := text.find(mark)) >= 0]
    if not found:
        return -1, None
    at, _, mark = min(found)
    return at, mark


def held_at_end(text: str, marks: Iterable[str]) -> int:
    """Number of characters at the end of a text that may begin a mark, and so cannot be sent yet."""
    longest = 0
    for mark in marks:
        for length in range(min(len(mark) - 1, len(text)), longest, -1):
            if text.endswith(mark[:length]):
                longest = length
                break
    return longest
