"""How the numbers of a run are written, in every view: `0.2933`, `5e-5`, `83 %`, `1,071`, `1.61 GB`, `7:10`.

The panel writes them by `labextension/src/format.ts` and the notebook's front ends by `llf_widgets/static/dom.js`;
`tests/number_formats.json` holds all three to the same cases.
"""

from __future__ import annotations

import math
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llf_core.runs.metric_catalog import Form

MINUTE, HOUR, DAY = 60, 3600, 86400
DIGITS, DECIMALS = 4, 4  # significant digits of a quantity, and its decimals at most
SMALL, LARGE = 1e-3, 1e9  # below and from here on a quantity has an exponent
SMALL_RATE = 0.01
UNITS = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def number(value: float) -> str:
    """A quantity, such as a loss: four significant digits, at most four decimals; below 0.001 two and an exponent.

    Not a finite number is written as `NaN`, `infinity` or `-infinity`.
    """
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("infinity" if value > 0 else "-infinity")
    size = abs(value)
    if size == 0:
        return "0"
    if size < SMALL or size >= LARGE:
        return exponent(value, 1)
    power = int(f"{size:.{DIGITS - 1}e}".split("e")[1])  # of what it is rounded to: 999.96 is 1,000
    return fixed(value, min(DECIMALS, max(0, DIGITS - 1 - power)))


def rate(value: float) -> str:
    """A learning rate: at most three significant digits, below 0.01 with an exponent: `5e-5`, `3.14e-5`, `0.05`."""
    if not math.isfinite(value) or value == 0:
        return number(value)
    return exponent(value, 2) if abs(value) < SMALL_RATE else f"{float(f'{value:.3g}'):,}".removesuffix(".0")


def fixed(value: float, decimals: int) -> str:
    """A finite number with so many decimals; halves are rounded away from 0, as in JavaScript but not in `format`."""
    return f"{Decimal(value).quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP):,}"


def exponent(value: float, decimals: int) -> str:
    """A number with an exponent, without zeros that say nothing: `5e-5`, `4.2e-4`, `1.2e9`."""
    mantissa, power = f"{value:.{decimals}e}".split("e")
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}e{int(power)}"


def share(value: float) -> str:
    """A number from 0 to 1 in per cent: `83 %`."""
    return f"{fixed(100 * value, 0)} %" if math.isfinite(value) else number(value)


def count(value: float) -> str:
    """A whole count with its thousands separated: `571,455`."""
    return fixed(value, 0) if math.isfinite(value) else number(value)


def value(amount: float, form: Form) -> str:
    """A measured number as its group writes it: `83 %`, `1,071`, `-0.2130`."""
    return {"share": share, "count": count, "number": number}[form](amount)


def size(amount: float) -> tuple[str, str]:
    """Bytes as a number of three digits and its unit: `("1.61", "GB")`; decimal units, as disks and cards are sold."""
    if not math.isfinite(amount):
        return number(amount), ""
    for unit, factor in UNITS:
        scaled = float(f"{amount / factor:.3g}")
        if scaled >= 1:
            return f"{scaled:,.{max(0, 2 - math.floor(math.log10(scaled)))}f}", unit
    return f"{amount:.0f}", "bytes"


def duration(seconds: float) -> str:
    """Seconds as `0:12`, `7:10`, `2:03:11` or `3 d 4 h`."""
    whole = max(0, round(seconds))
    if whole >= 2 * DAY:
        return f"{whole // DAY} d {whole % DAY // HOUR} h"
    minutes, rest = divmod(whole, MINUTE)
    if whole < HOUR:
        return f"{minutes}:{rest:02d}"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
