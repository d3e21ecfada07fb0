from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING

from llf_core.config.field_specs import field as spec_of
from llf_core.config.problem import Fix
from llf_core.config.rule import Rule

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config.values import ConfigValues

SHARE = "share"
"""In `when`: whether the value is a share, below 1."""


@dataclass(frozen=True)
class TypicalValue:
    """Typical values of a field, from `typical_values.toml`.

    Attributes:
        when: values of other fields under which it applies.
        least: smaller values, except 0, get a warning; None for no bound.
        most: larger values get a warning; None for no bound.
        set: value that the fix sets; None where no value is always right.
    """

    key: str
    typical: str
    when: Mapping[str, list[object]] = field(default_factory=dict)
    least: float | None = None
    most: float | None = None
    set: float | None = None

    def applies_to(self, config: ConfigValues) -> bool:
        """Whether the entry applies to a config."""
        value = config.get(self.key)
        return all(
            (value is not None and value < 1) in allowed if key == SHARE else config.get(key) in allowed
            for key, allowed in self.when.items()
        )

    def deviation(self, value: float) -> str:
        """`above` if a value exceeds `most`, `below` if it is positive and less than `least`, else `""`."""
        if self.most is not None and value > self.most:
            return "above"
        return "below" if self.least is not None and 0 < value < self.least else ""


def table() -> tuple[TypicalValue, ...]:
    """The entries; the first that applies to a config counts."""
    data = tomllib.loads(files(__package__).joinpath("typical_values.toml").read_text(encoding="utf-8"))
    return tuple(TypicalValue(**entry) for entry in data["value"])


def _rule(key: str, entries: tuple[TypicalValue, ...]) -> Rule:
    def entry(config: ConfigValues) -> TypicalValue | None:
        return next((one for one in entries if one.applies_to(config)), None)

    def far(config: ConfigValues) -> bool:
        one, value = entry(config), config.get(key)
        return one is not None and value is not None and bool(one.deviation(value))

    def reason(config: ConfigValues) -> str:
        one, spec, value = entry(config), spec_of(key), config.get(key)
        assert one is not None and spec is not None, key  # noqa: PT018, S101 - `far` has found it
        typical = f"Usual {one.typical}" if one.typical[0].isalpha() else f"Usual: {one.typical}"
        return f"{spec.label} (`{key}`) is {value:g}, far {one.deviation(value)} the usual range. {typical}."

    def fix(config: ConfigValues) -> tuple[Fix, ...]:
        one = entry(config)
        return () if one is None or one.set is None else (Fix(f"Set to {_short(one.set)}", {key: one.set}),)

    others = dict.fromkeys(name for one in entries for name in one.when if name != SHARE)
    return Rule((key, *others), far, reason, fix, severity="warning")


def _short(value: float) -> str:
    if value and abs(value) < 1e-3:  # noqa: PLR2004 - as a form writes numbers
        digits, _, exponent = f"{value:e}".partition("e")
        return f"{float(digits):g}e{int(exponent)}"
    return f"{value:g}"


_TABLE = table()
TYPICAL_VALUE_RULES: tuple[Rule, ...] = tuple(
    _rule(key, tuple(one for one in _TABLE if one.key == key)) for key in dict.fromkeys(one.key for one in _TABLE)
)
