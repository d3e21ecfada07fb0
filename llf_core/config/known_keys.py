"""Every key and value of LLaMA-Factory and transformers beside our own options: `llama_factory.toml`."""

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
    """Known keys that are not options.

    Attributes:
        features: by key that is not built, its feature.
        defaults: by key that is not built, the values that do nothing.
        values: by key, the values that are not built and their features.
        not_needed: by key, what happens instead.
        translated: by key, the key that took its place.
        secrets: by key, the environment variable that takes its place.
    """

    features: Mapping[str, str]
    defaults: Mapping[str, tuple[Any, ...]]
    values: Mapping[str, Mapping[Any, str]]
    not_needed: Mapping[str, str]
    translated: Mapping[str, str]
    secrets: Mapping[str, str]

    @property
    def keys(self) -> frozenset[str]:
        """All known keys that are not options; a key that is neither is reported as unknown."""
        return frozenset({*self.features, *self.not_needed, *self.translated, *self.secrets})


@functools.cache
def known() -> Known:
    """Read `llama_factory.toml`, once per process."""
    data = tomllib.loads(files(__package__).joinpath("llama_factory.toml").read_text(encoding="utf-8"))
    features: dict[str, str] = {}
    defaults: dict[str, tuple[Any, ...]] = {}
    values: dict[str, dict[Any, str]] = {}
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
    return Known(features, defaults, values, data["not_needed"], data["translated"], data["secret"])
