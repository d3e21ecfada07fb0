"""Formats of numbers and times in views; numbers as in `llf_core.runs.formatting`."""

from __future__ import annotations

import time

from llf_core.runs.formatting import count, duration, number, rate, share, size, value

__all__ = ["clock", "count", "duration", "number", "rate", "share", "size", "span", "value"]


def clock(moment: float) -> str:
    """Format Unix seconds of today as `14:36`, of another day as `25 November, 14:36` (local time)."""
    when = time.localtime(moment)
    if when[:3] == time.localtime()[:3]:
        return time.strftime("%H:%M", when)
    return f"{when.tm_mday} {time.strftime('%B, %H:%M', when)}"


def span(start: float, end: float) -> str:
    """Format a time span in Unix seconds: `24 November 2026, 14:25 to 14:36` (local time)."""
    first, last = time.localtime(start), time.localtime(end)
    text = f"{first.tm_mday} {time.strftime('%B %Y, %H:%M', first)}"
    if first[:3] == last[:3]:
        return f"{text} to {time.strftime('%H:%M', last)}"
    return f"{text} to {last.tm_mday} {time.strftime('%B %Y, %H:%M', last)}"
