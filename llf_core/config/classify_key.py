from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from llf_core.config.field_specs import field, fields
from llf_core.config.known_keys import known
from llf_core.config.number_format import exact
from llf_core.config.option import flag
from llf_core.config.problem import Fix, Problem
from llf_core.redaction.source_scan import is_secret

if TYPE_CHECKING:
    from llf_core.config.field_specs import FieldSpec

MAX_VALUE_CHARACTERS = 60


def classify(key: str, value: object, line: int | None) -> Problem | None:
    """Classify a key, before its value is validated; None if nothing has to be reported.

    Args:
        line: its line in a file, counted from 1; None if unknown.
    """
    spec, listed = field(key), known()
    if spec is not None:
        return _value_not_built(spec, value, line)
    if key in listed.secrets:
        return None if value is None else _secret(key, listed.secrets[key], line)
    if key in listed.not_needed or key in listed.replaced:
        return _not_needed(key, value, line)
    if key in listed.features:
        if any(_same(value, harmless) for harmless in listed.defaults[key]):
            return None
        feature = listed.features[key]
        message = f"`{key}` is {show(value)}, which is not supported yet ({feature}). Expected it to be absent."
        return Problem("not_built", key, value, message, (_removal(key),), line=line)
    return _unknown(key, value, line)


def _not_needed(key: str, value: object, line: int | None) -> Problem | None:
    listed = known()
    if key in listed.replaced and (value is None or _same(value, harmless=False)):
        return None
    message = f"`{key}` is not needed. {listed.not_needed.get(key) or listed.replaced[key]}"
    return Problem("not_needed", key, value, message, severity="note", line=line)


def is_known(key: str) -> bool:
    """Whether a key is an option, or a known key: not supported, not needed, another name or a secret."""
    return field(key) is not None or key in known().keys


def show(value: object) -> str:
    """Format a value for a message as in a config file, truncated to 60 characters."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = exact(value) if isinstance(value, float) else repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= MAX_VALUE_CHARACTERS else f"{text[: MAX_VALUE_CHARACTERS - 1]}…"


def _value_not_built(spec: FieldSpec, value: object, line: int | None) -> Problem | None:
    values = known().values.get(spec.key, {})
    if not isinstance(value, str | int) or isinstance(value, bool) or value not in values:
        return None
    if spec.choices and value in spec.choices:
        return None  # a plug-in brings it
    message = f"`{spec.key}` is {show(value)}, which is not supported yet ({values[value]}). Expected {spec.expected}."
    fix = Fix(
        f"Set to {spec.default if isinstance(spec.default, str) else show(spec.default)}", {spec.key: spec.default}
    )
    return Problem("not_built", spec.key, value, message, (fix,), line=line)


def _secret(key: str, variable: str, line: int | None) -> Problem:
    message = f"`{key}` is a secret, and the config is stored with the run. Set {variable} in the environment instead."
    return Problem("invalid", key, None, message, (_removal(key),), line=line)


def _unknown(key: str, value: object, line: int | None) -> Problem:
    if is_secret(key, value):
        message = (
            f"`{key}` is not a config key, and it looks like a secret, which a run would keep. Expected it in the "
            "environment of the process that starts the run."
        )
        return Problem("unknown", key, None, message, (_removal(key),), line=line)
    names = [*(spec.key for spec in fields()), *known().keys]
    nearest = difflib.get_close_matches(key, sorted(names), n=1)
    if not nearest:
        return Problem("unknown", key, value, f"Unknown key `{key}`.", (_removal(key),), line=line)
    message = f"Unknown key `{key}`. Did you mean `{nearest[0]}`?"
    rename = Fix(f"Rename to {nearest[0]}", {key: None, nearest[0]: value})
    return Problem("unknown", key, value, message, (rename, _removal(key)), line=line)


def _removal(key: str) -> Fix:
    return Fix(f"Remove {key}", {key: None})


def _same(value: object, harmless: object) -> bool:
    """Whether two values are equal in a YAML file: 2 is 2.0, and where a flag is expected, `no` and 0 are false."""
    if isinstance(harmless, bool):
        return flag(value) is harmless
    return not isinstance(value, bool) and bool(value == harmless)
