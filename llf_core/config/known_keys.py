from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


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
