"""How sure a share is that was counted."""

from __future__ import annotations

from math import sqrt

SIGMA = 1.959963984540054  # of a normal distribution, 95 % lie within so many standard deviations


def wilson_interval(successes: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share (E. B. Wilson, 1927); it holds for few trials and for shares near 0 and 1 too.

    Args:
        successes: how many there were; a tie may count as a half.
        count: of how many trials, at least one.

    Returns:
        Lower and upper end, 0 to 1.
    """
    share, squared = successes / count, SIGMA**2
    middle = (share + squared / (2 * count)) / (1 + squared / count)
    half = SIGMA / (1 + squared / count) * sqrt(share * (1 - share) / count + squared / (4 * count**2))
    return max(middle - half, 0.0), min(middle + half, 1.0)
