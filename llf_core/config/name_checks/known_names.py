"""Well-known architectures and data sets, from `known.toml`, and models, from the catalog."""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from llf_core.model_catalog import find_model, known_models


@dataclass(frozen=True)
class Family:
    """Architectures (`model_type`) with the same modules.

    Attributes:
        linear: linear layers that an adapter can be put on.
        experts: parameters of experts that an adapter can be put on.
    """

    types: tuple[str, ...]
    linear: tuple[str, ...]
    inside: tuple[str, ...]
    outside: tuple[str, ...]
    experts: tuple[str, ...] = ()


@functools.cache
def families() -> tuple[Family, ...]:
    """All architectures whose modules are known."""
    return tuple(Family(**{key: tuple(value) for key, value in one.items()}) for one in _data()["family"])


@functools.cache
def models() -> tuple[str, ...]:
    """Hub ids of the catalog: they need no query of the hub."""
    return tuple(one.id for one in known_models())


def family_of(model: str = "", model_type: str = "") -> Family | None:
    """Find the family of a model, by its hub id or its `model_type`; None if neither is known."""
    known = find_model(model)
    types = {model_type, "" if known is None else known.type} - {""}
    return next((one for one in families() if types.intersection(one.types)), None)


def datasets() -> tuple[str, ...]:
    """Hub ids of well-known data sets: they need no query of the hub."""
    return tuple(_data()["datasets"]["hub"])


def llama_factory_entries() -> tuple[str, ...]:
    """Names of LLaMA-Factory's own `dataset_info.json`, whose data LLF does not ship."""
    return tuple(_data()["datasets"]["entries"])


@functools.cache
def _data() -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath("known.toml").read_text(encoding="utf-8"))
