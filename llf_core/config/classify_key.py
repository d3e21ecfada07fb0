"""What a key of a config file is: LLF's, one with a new name, one of LLaMA-Factory that is not needed, or a mistake."""

from __future__ import annotations

import difflib
import functools
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from llf_core.config.field_specs import field, fields
from llf_core.config.number_format import exact
from llf_core.config.option import flag
from llf_core.config.rule import Fix, Problem
from llf_core.redaction.source_scan import is_secret

if TYPE_CHECKING:
    from collections.abc import Mapping

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


@dataclass(frozen=True)
class Known:
    """Keys and values of LLaMA-Factory and transformers that are not options: `llama_factory.toml`.

    Attributes:
        defaults: by key that is not built, the values that do nothing.
        values: by key, the values that are not built and their features.
        not_needed: by key, what happens instead.
        replaced: by key, what happens instead where it is on.
        translated: by key, the key that took its place.
        secrets: by key, the environment variable that takes its place.
        optimizers: by name of an optimizer in transformers, the keys and values that select it here.
        optimizer_options: by switch of an optimizer, the keys of its `optim_args` in transformers, with the default.
        optimizer_targets: by switch of an optimizer, the key that `optim_target_modules` means.
    """

    features: Mapping[str, str]
    defaults: Mapping[str, tuple[object, ...]]
    values: Mapping[str, Mapping[Any, str]]
    not_needed: Mapping[str, str]
    replaced: Mapping[str, str]
    translated: Mapping[str, str]
    secrets: Mapping[str, str]
    optimizers: Mapping[str, Mapping[str, object]]
    optimizer_options: Mapping[str, Mapping[str, tuple[str, object]]]
    optimizer_targets: Mapping[str, str]

    @property
    def keys(self) -> frozenset[str]:
        """All known keys that are not options."""
        return frozenset({*self.features, *self.not_needed, *self.replaced, *self.translated, *self.secrets})


@functools.cache
def known() -> Known:
    """Read `llama_factory.toml`, once per process."""
    data = tomllib.loads(files(__package__).joinpath("llama_factory.toml").read_text(encoding="utf-8"))
    features: dict[str, str] = {}
    defaults: dict[str, tuple[object, ...]] = {}
    values: dict[str, dict[object, str]] = {}
    for feature in data["feature"]:
        harmless = feature.get("harmless", {})
        unsupported = {
            **dict.fromkeys(harmless, None),
            **feature.get("keys", {}),
            **dict.fromkeys(feature.get("unset", ())),
        }
        for key, default in unsupported.items():
            features[key] = feature["name"]
            defaults[key] = (default, *harmless.get(key, ()))
        for key, names in feature.get("values", {}).items():
            values.setdefault(key, {}).update(dict.fromkeys(names, feature["name"]))
    options = {
        switch: {name: (key, default) for name, [key, default] in entries.items()}
        for switch, entries in data["optimizer_options"].items()
    }
    return Known(
        features=features,
        defaults=defaults,
        values=values,
        not_needed=data["not_needed"],
        replaced=data["replaced"],
        translated=data["translated"],
        secrets=data["secret"],
        optimizers=data["optimizers"],
        optimizer_options=options,
        optimizer_targets=data["optimizer_targets"],
    )


SWITCHES: dict[str, object] = {
    "group_by_length": "group_by_length",
    "disable_shuffling": "sequential",
    "adafactor": "adafactor",
    "pissa_init": "pissa",
    "predict_with_generate": "rouge,bleu",
    "use_liger_kernel": True,
    "neat_packing": True,  # ours never leaks
}
"""Aliases that are flags, and the value of the other key where they are true."""

CONFIGS = (
    "deepspeed", "fsdp", "fsdp_config", "dist_config", "peft_config", "quant_config", "kernel_config", "optim_config",
    "train_dataset",
)  # fmt: skip
"""Aliases that hold a config of their own, or the path of one."""


def without_renamed(values: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, Any]:
    """Leave out the keys that changes set by another name, so that the changes count.

    A flag that is off, such as `adafactor: false`, sets its key only where the config has the value that it stands for.
    """
    left, translated = _without_optimizer(values, changes), known().translated
    for old, new in translated.items():
        if old not in changes or new in changes:
            continue
        off = old in SWITCHES and changes[old] is not None and is_off(old, changes[old])
        if not off or values.get(new) == SWITCHES[old]:
            left.pop(new, None)
    changed = {*changes, *(translated[key] for key in changes if key in translated and not is_off(key, changes[key]))}
    return {key: value for key, value in left.items() if key in changes or translated.get(key) not in changed}


def _without_optimizer(values: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    """Leave out the keys that a name of transformers among the changes replaces, such as `optim: galore_adamw`.

    The name selects the whole optimizer, so `use_apollo` of the values no longer counts; `optim_args` are all options.
    """
    name = changes.get("optim")
    if not isinstance(name, str) or name not in known().optimizers:
        return dict(values)
    replaced = {key for keys in known().optimizers.values() for key in keys} - {"optim"}
    if "optim_args" in changes:
        replaced |= {key for options in known().optimizer_options.values() for key, _ in options.values()}
    if "optim_target_modules" in changes:
        replaced |= {*known().optimizer_targets.values()}
    return {key: value for key, value in values.items() if key in changes or key not in replaced}


def is_off(old: str, given: object) -> bool:
    """Whether an alias, one of `known().translated`, has a value that sets nothing, such as `adafactor: false`."""
    if old in SWITCHES:
        return given is None or flag(given) is False
    if old in CONFIGS:
        return given is None or given is False or given in ("", [], {})
    return given is None or (old == "warmup_ratio" and given == 0)
