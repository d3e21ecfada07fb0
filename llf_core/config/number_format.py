from __future__ import annotations

import math
from decimal import Decimal
from numbers import Integral

SMALL, LARGE = 0.01, 1e15
"""Numbers below `SMALL` and from `LARGE` on have an exponent; learning rates in views have the same limit."""


def exact(value: float) -> str:
    """Format a number, also of numpy, with as few digits as possible that read back as the same number: `5e-5`, `0.05`.

    Integers have no decimals; numbers that are not finite are written as Python does.
    """
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Integral):  # numpy's, which a float would round
        return str(int(value))
    value = float(value)  # of numpy's, which have another `repr`
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if value.is_integer() and size < LARGE:
        return str(int(value))
    if SMALL <= size < LARGE:
        return repr(value)
    digits = Decimal(repr(value))  # the shortest that mean this number
    power = digits.adjusted()
    mantissa = "".join(map(str, digits.as_tuple().digits)).rstrip("0")
    point = f"{mantissa[0]}.{mantissa[1:]}" if len(mantissa) > 1 else mantissa
    return f"{'-' if value < 0 else ''}{point}e{power}"


def with_unit(number: int | str, unit: str) -> str:
    """Write a number, or its text, with its unit in the singular or, with an `s`, in the plural: `1,200 tokens`."""
    text = number if isinstance(number, str) else f"{number:,}"
    return f"{text} {unit}{'' if text == '1' else 's'}"


def percent(share: float, decimals: int = 0) -> str:
    """Write a share (1 for all) as a percentage: `97 %`."""
    return f"{100 * share:.{decimals}f} %"


def for_yaml(value: float) -> str:
    """Format a number like `exact`, but with a point before an exponent: in YAML 1.1, `5e-5` is a string."""
    if isinstance(value, Integral):
        return exact(value)
    if math.isnan(value):
        return ".nan"
    if math.isinf(value):
        return "-.inf" if value < 0 else ".inf"
    text = exact(value)
    mantissa, mark, power = text.partition("e")
    if not mark:
        return text
    mantissa = mantissa if "." in mantissa else f"{mantissa}.0"
    return f"{mantissa}e{power}" if power.startswith("-") else f"{mantissa}e+{power}"
