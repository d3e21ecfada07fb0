"""Number formats shared by all views: `0.2933`, `5e-5`, `83 %`, `1,071`, `1.61 GB`, `7:10`.

Sidebar and notebook views use `labextension/src/numbers.ts`; `tests/number_formats.json` holds the test cases for both.
Non-finite values are `NaN`, `infinity` and `-infinity`.

Removes terminal colors and bidirectional controls from text that is shown in pages.
"""

from __future__ import annotations

import math
import re
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import TYPE_CHECKING, Any

from llf_core.untrusted import BIDI_CONTROLS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llf_core.runs.charts import Form

MINUTE, HOUR, DAY = 60, 3600, 86400
DIGITS, DECIMALS = 4, 4  # significant digits of a quantity, and maximum decimals
SMALL, LARGE = 1e-3, 1e9  # outside this range a quantity has an exponent
SMALL_RATE = 0.01

ALL_DIGITS = Context(prec=400)
"""Precision for the whole part of any float, which has up to 309 digits, and its decimals."""
UNITS = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def number(value: float) -> str:
    """Format a quantity such as a loss with four significant digits and at most four decimals: `0.2933`, `1,071`.

    Below 0.001 and from 1e9 on it has two digits and an exponent: `4.2e-4`.
    """
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("infinity" if value > 0 else "-infinity")
    size = abs(value)
    if size == 0:
        return "0"
    if size < SMALL or size >= LARGE:
        return exponent(value, 1)
    power = int(f"{size:.{DIGITS - 1}e}".split("e")[1])  # after rounding: 999.96 is 1,000
    return fixed(value, min(DECIMALS, max(0, DIGITS - 1 - power)))


def rate(value: float) -> str:
    """Format a learning rate with at most three significant digits, below 0.01 with an exponent: `5e-5`, `0.05`."""
    if not math.isfinite(value) or value == 0:
        return number(value)
    return exponent(value, 2) if abs(value) < SMALL_RATE else f"{float(f'{value:.3g}'):,}".removesuffix(".0")


def fixed(value: float, decimals: int) -> str:
    """Format a finite number with a fixed number of decimals, rounding halves away from 0 like `numbers.ts`."""
    return f"{Decimal(value).quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP, ALL_DIGITS):,}"


def exponent(value: float, decimals: int) -> str:
    """Format a number in scientific notation without trailing zeros: `5e-5`, `4.2e-4`, `1.2e9`."""
    mantissa, power = f"{value:.{decimals}e}".split("e")
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}e{int(power)}"


def share(value: float) -> str:
    """Format a share from 0 to 1 in whole percent: `83 %`."""
    percent = 100 * value
    return f"{fixed(percent, 0)} %" if math.isfinite(percent) else number(percent)


def amount_text(amount: float, unit: str) -> str:
    """Format a metric for a table of evaluations: `83.2 %` for 0.832 with the unit `%`, otherwise as `number`."""
    return f"{100 * amount:.1f} %" if unit == "%" and math.isfinite(amount) else number(amount)


def count(value: float) -> str:
    """Format a number, rounded to an integer, with thousands separators: `571,455`."""
    return fixed(value, 0) if math.isfinite(value) else number(value)


def value(amount: float, form: Form) -> str:
    """Format a metric as its chart defines: `83 %`, `1,071`, `-0.2130`, `5e-5`, `1.61 GB`."""
    return _WRITERS[form](amount)


def size(amount: float) -> tuple[str, str]:
    """Format bytes as number and decimal unit (1 kB is 1000 bytes): `("1.61", "GB")`, `("512", "bytes")`."""
    if not math.isfinite(amount):
        return number(amount), ""
    for unit, factor in UNITS:
        scaled = float(f"{amount / factor:.3g}")
        if scaled >= 1:
            return f"{scaled:,.{max(0, 2 - math.floor(math.log10(scaled)))}f}", unit
    return f"{amount:.0f}", "bytes"


_WRITERS: Mapping[Form, Callable[[float], str]] = {
    "share": share, "count": count, "number": number, "rate": rate, "bytes": lambda amount: " ".join(size(amount)),
}  # fmt: skip


def duration(seconds: float) -> str:
    """Format seconds as `0:12`, `7:10`, `2:03:11` or, from two days on, `3 d 4 h`. A negative duration counts as 0."""
    whole = max(0, round(seconds))
    if whole >= 2 * DAY:
        return f"{whole // DAY} d {whole % DAY // HOUR} h"
    minutes, rest = divmod(whole, MINUTE)
    if whole < HOUR:
        return f"{minutes}:{rest:02d}"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


COLOR_VARIABLES = ("FORCE_COLOR", "CLICOLOR_FORCE", "CLICOLOR", "PY_COLORS", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
"""Environment variables that force colors without a terminal. Jupyter kernels set some of them."""

# CSI sequences (colors, cursor), OSC sequences (links, titles) up to the end of their line, and short escapes
# (`ESC ( B` of `tput sgr0`, `ESC 7`), as ECMA-35 has them.
ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\n]*(?:\x07|\x1b\\)?|[ -/]+[0-~]|[0-Z\\-~])")


def plain_environment(base: Mapping[str, str]) -> dict[str, str]:
    """Copy an environment without variables that force colors, and with `NO_COLOR` (https://no-color.org)."""
    return {key: value for key, value in base.items() if key not in COLOR_VARIABLES} | {"NO_COLOR": "1"}


def without_escapes(text: str) -> str:
    """Remove escape sequences (colors, cursor movements, links) from text that a page displays."""
    return ESCAPES.sub("", text)


def strip_bidi(text: str) -> str:
    """Remove bidirectional control characters, which would reverse the text around a name.

    Text in a right-to-left script is displayed in order without them, by the Unicode Bidirectional Algorithm (UAX #9).
    """
    return text if text.isascii() else BIDI_CONTROLS.sub("", text)


def strip_bidi_nested(value: object) -> Any:
    """Copy a JSON or YAML value with `strip_bidi` applied to all strings, keys too, and tuples as lists."""
    if isinstance(value, dict):
        return {strip_bidi(key) if isinstance(key, str) else key: strip_bidi_nested(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [strip_bidi_nested(one) for one in value]
    return strip_bidi(value) if isinstance(value, str) else value
