from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def training_seconds(moments: Iterable[tuple[int, float]], attempt: int, until: float | None) -> float:
    """Seconds of training, without pauses between attempts.

    Args:
        moments: (attempt, Unix time) of everything the run wrote; without any, the result is 0.
        until: current time (Unix seconds) for a live run; None for an ended one, which counts up to its last record.
    """
    first: dict[int, float] = {}
    last: dict[int, float] = {}
    for number, moment in moments:
        first[number] = min(first.get(number, moment), moment)
        last[number] = max(last.get(number, moment), moment)
    if until is not None and attempt in first:
        last[attempt] = max(last[attempt], until)
    return sum(last[number] - first[number] for number in first)
