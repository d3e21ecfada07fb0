from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Preset:
    """A preset: initial values of a config."""

    name: str
    label: str
    help: str
    values: Mapping[str, Any]


@functools.cache
def presets() -> tuple[Preset, ...]:
    """All presets, the simplest first."""
    data = tomllib.loads(files(__package__).joinpath("presets.toml").read_text(encoding="utf-8"))
    return tuple(
        Preset(one["name"], one["label"], one["help"], MappingProxyType(one["values"])) for one in data["preset"]
    )


def preset(name: str) -> dict[str, Any]:
    """The values that a preset sets, by key.

    Raises:
        KeyError: there is no such preset; the message has the names of all.
    """
    for one in presets():
        if one.name == name:
            return dict(one.values)
    raise KeyError(f"Unknown preset {name!r}. Expected one of {', '.join(one.name for one in presets())}.")
