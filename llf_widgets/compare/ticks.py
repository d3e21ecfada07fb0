from __future__ import annotations

import math

FEWEST, MOST = 3, 6
STEPS: tuple[tuple[int, ...], ...] = ((1,), (1, 3), (1, 2, 5), tuple(range(1, 10)))
"""Multiples of each power of ten, from the fewest ticks to the most."""


def log_ticks(low: float, high: float) -> list[float]:
    """Choose round tick values for a logarithmic axis; Plotly's own are too many or too few for a small range.

    Args:
        low: lower end, above 0.
        high: upper end, not below `low`.

    Returns:
        3 to 6 values in ascending order; for a range so small that the axis is nearly linear, evenly spaced ones, at
        most 12, and fewer than 3 if the ends differ only in their sixth digit.
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = max(1, -(-(last - first) // MOST))  # of many powers of ten only every n-th
    for steps in STEPS:
        powers = range(first, last + 1, every if steps == (1,) else 1)
        found = [step * 10.0**power for power in powers for step in steps if low <= step * 10.0**power <= high]
        if FEWEST <= len(found) <= MOST:
            return [float(f"{one:.6g}") for one in found]
    return _even(low, high)


def _even(low: float, high: float) -> list[float]:
    span = high - low or abs(high)
    power = 10.0 ** math.floor(math.log10(span / FEWEST))
    step = next(size * power for size in (5, 2, 1, 0.5, 0.2, 0.1) if math.floor(span / (size * power)) >= FEWEST)
    first = math.ceil(low / step)
    places = range(first, math.floor(high / step) + 1)
    return list(dict.fromkeys(float(f"{place * step:.6g}") for place in places))[: 2 * MOST]
