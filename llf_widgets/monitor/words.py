"""How numbers, times and sizes are written in a view: `7:10`, `3.1e-5`, `1,071`, `1.61 GB`."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llf_core.runs.measures import Form

MINUTE, HOUR, DAY = 60, 3600, 86400


def duration(seconds: float) -> str:
    """Seconds as `0:12`, `7:10`, `2:03:11` or `3 d 4 h`."""
    whole = max(0, round(seconds))
    if whole >= 2 * DAY:
        return f"{whole // DAY} d {whole % DAY // HOUR} h"
    minutes, rest = divmod(whole, MINUTE)
    if whole < HOUR:
        return f"{minutes}:{rest:02d}"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def number(value: float, digits: int = 3) -> str:
    """A quantity with `digits` significant digits and no exponent for everyday sizes; NaN and infinity by name."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("infinity" if value > 0 else "-infinity")
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1000:  # noqa: PLR2004 - from here on a comma helps and decimals do not
        return f"{value:,.0f}" if size < 1e9 else f"{value:.{digits - 1}e}"  # noqa: PLR2004
    if size < 1e-3:  # noqa: PLR2004 - 0.00042 is harder to read than 4.2e-4
        return small(value)
    decimals = max(0, digits - 1 - math.floor(math.log10(size)))
    return f"{value:.{decimals}f}"


def value(amount: float, form: Form, digits: int = 3) -> str:
    """A measured number as its group writes it: `83 %`, `1,071`, `-0.213`."""
    if form == "share" and math.isfinite(amount):
        return f"{100 * amount:.0f} %"
    return count(amount) if form == "count" else number(amount, digits)


def small(value: float) -> str:
    """A learning rate: `3.1e-5`, `1.0e-4`, `0`."""
    if not math.isfinite(value):
        return number(value)
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def count(value: float) -> str:
    """A whole count with thousands separated: `571,455`."""
    return f"{value:,.0f}" if math.isfinite(value) else number(value)


def size(amount: float) -> tuple[str, str]:
    """Bytes as a number and its unit: `("1.61", "GB")`; decimal units, as disks and cards are sold."""
    if not math.isfinite(amount):
        return number(amount), ""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if amount >= factor:
            return number(amount / factor), unit
    return f"{amount:.0f}", "bytes"


def clock(moment: float) -> str:
    """A moment of today as `14:36`, of another day as `25 November, 14:36` (local time)."""
    when = time.localtime(moment)
    if when[:3] == time.localtime()[:3]:
        return time.strftime("%H:%M", when)
    return f"{when.tm_mday} {time.strftime('%B, %H:%M', when)}"


def span(start: float, end: float) -> str:
    """From when to when: `24 November 2026, 14:25 to 14:36` (local time)."""
    first, last = time.localtime(start), time.localtime(end)
    text = f"{first.tm_mday} {time.strftime('%B %Y, %H:%M', first)}"
    if first[:3] == last[:3]:
        return f"{text} to {time.strftime('%H:%M', last)}"
    return f"{text} to {last.tm_mday} {time.strftime('%B %Y, %H:%M', last)}"
