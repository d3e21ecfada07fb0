"""How long a run has trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def trained_seconds(moments: Iterable[tuple[int, float]], attempt: int, until: float | None) -> float:
    """Seconds a run has worked, pauses between attempts left out.

    Args:
        moments: (attempt, Unix time) of everything that the run wrote.
        attempt: the current attempt.
        until: now for a live run; None for one that has ended, which counts up to its last sign.
    """
    first: dict[int, float] = {}
    last: dict[int, float] = {}
    for number, moment in moments:
        first[number] = min(first.get(number, moment), moment)
        last[number] = max(last.get(number, moment), moment)
    if until is not None and attempt in first:
        last[attempt] = max(last[attempt], until)
    return sum(last[number] - first[number] for number in first)
