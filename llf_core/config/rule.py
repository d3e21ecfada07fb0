"""Base of the validation rules between fields; built-in rules are in `rules/`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llf_core.config.problem import Fix, Problem, Severity

if TYPE_CHECKING:
    from collections.abc import Callable

    from llf_core.config.option import Section
    from llf_core.config.values import ConfigValues


def no_effect(options: type[Section], key: str, needed: str, when: Callable[[ConfigValues], bool]) -> Rule:
    """Create the note that an option is set and not read, since another option is not set for it.

    Args:
        options: the section or the plug-in's options that have the key.
        needed: the setting with which it is read, such as `pref_loss: simpo`; begins with a key.
        when: whether a config, of a plug-in's option one that selects it, is without that setting.
    """
    default = options.model_fields[key].default
    return Rule(
        (key, needed.partition(":")[0]),
        lambda config: config.get(key) != default and when(config),
        f"`{key}` has no effect without `{needed}`.",
        (Fix("Remove it", {key: None}),),
        severity="note",
    )


@dataclass(frozen=True)
class Rule:
    """An impossible or risky combination of values.

    Attributes:
        fields: the keys that take part; the message stands beside the first.
        reason: one or two sentences.
    """

    fields: tuple[str, ...]
    when: Callable[[ConfigValues], bool]
    reason: str | Callable[[ConfigValues], str]
    fix: tuple[Fix, ...] | Callable[[ConfigValues], tuple[Fix, ...]] = ()
    severity: Severity = "error"

    def check(self, config: ConfigValues) -> Problem | None:
        """Check a config, and return the problem, or None."""
        if not self.when(config):
            return None
        key = self.fields[0]
        return Problem(
            kind="violation",
            key=key,
            value=config.get(key),
            message=self.reason if isinstance(self.reason, str) else self.reason(config),
            fixes=self.fix if isinstance(self.fix, tuple) else self.fix(config),
            severity=self.severity,
            keys=self.fields,
        )
