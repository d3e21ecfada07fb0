"""Base of the validation rules between fields; built-in rules are in `rules/`."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from llf_core.redaction import redact, redact_nested
from llf_core.untrusted import brief
from llf_core.user_error import BAD_CONFIG, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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


Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Fix:
    """A suggested change of a config that fixes a problem.

    Attributes:
        label: a verb with its object, e.g. "Hold out 5 %".
        changes: values by key; None removes a key.
    """

    label: str
    changes: Mapping[str, Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", brief(redact(self.label)))
        object.__setattr__(self, "changes", MappingProxyType(dict(self.changes)))

    def shown_changes(self) -> dict[str, Any]:
        """A copy of the changes without secrets in keys and values."""
        shown: dict[str, Any] = _without_secrets(dict(self.changes))
        return shown


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


Kind = Literal["unknown", "not_built", "invalid", "not_needed", "violation", "unresolved"]


@dataclass(frozen=True)
class Problem:
    """An error, a warning or a note about a config.

    Attributes:
        key: the key it stands beside; empty where it concerns the whole file.
        value: the requested value; None where it is not repeated: of a secret, of a key that is given twice or holds
            text that no key may hold, of an override that cannot be read, and of the whole file.
        message: one or two sentences: what is wrong, with which value, what was expected.
        severity: an error stops a start; a warning costs time, memory or quality; a note informs.
        line: counted from 1; None if unknown.
        keys: all keys that take part, `key` first; empty if they are unknown.
    """

    kind: Kind
    key: str
    value: Any
    message: str
    fixes: tuple[Fix, ...] = ()
    severity: Severity = "error"
    line: int | None = None
    keys: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", brief(redact(self.message)))

    def json(self) -> dict[str, Any]:
        """Convert its attributes but `keys` to JSON data, without secrets.

        A number that is not finite stays one. A `value` that is a list or a mapping becomes text.
        """
        return {
            "kind": self.kind,
            "key": redact(self.key),
            "value": _json_value(self.value),
            "message": self.message,
            "fixes": [{"label": fix.label, "changes": fix.shown_changes()} for fix in self.fixes],
            "severity": self.severity,
            "line": self.line,
        }


def _without_secrets(value: Any) -> Any:
    """A copy of a value without secrets, in the names of its keys too, where a missing space may have put one."""

    def keys(inner: Any) -> Any:
        if isinstance(inner, dict):
            return {redact(key) if isinstance(key, str) else key: keys(one) for key, one in inner.items()}
        return [keys(one) for one in inner] if isinstance(inner, list) else inner

    return keys(redact_nested(value))


def _json_value(value: object) -> float | str | None:
    value = _without_secrets(value)
    return value if isinstance(value, int | float | str | bool | None) else str(value)


class ConfigError(UserError, ValueError):
    """Error of an invalid config, with all `problems`, errors first; as text, one line per problem."""

    exit_code = BAD_CONFIG

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("; ".join(problem.message for problem in problems))
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(problem.message for problem in self.problems)
