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
    """Architectures with the same modules.

    Attributes:
        types: their `model_type`s.
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
    """All architectures whose modules are known, so that module names are checked before a model is downloaded."""
    return tuple(Family(**{key: tuple(value) for key, value in one.items()}) for one in _data()["family"])


@functools.cache
def models() -> tuple[str, ...]:
    """Hub ids of the catalog: they need no query of the hub, and are suggested for a misspelled id."""
    return tuple(one.id for one in known_models())


def family_of(model: str = "", model_type: str = "") -> Family | None:
    """Find the family of a model, by its id or its architecture.

    Models of a family have the same modules, whose names are then known without the model.

    Args:
        model: hub id, `owner/name`.
        model_type: architecture, as in the model's `config.json`.

    Returns:
        The family, or None if neither is known.
    """
    known = find_model(model)
    types = {model_type, "" if known is None else known.type} - {""}
    return next((one for one in families() if types.intersection(one.types)), None)


def datasets() -> tuple[str, ...]:
    """Hub ids of well-known data sets: they need no query of the hub, and are suggested for a misspelled id."""
    return tuple(_data()["datasets"]["hub"])


def llama_factory_entries() -> tuple[str, ...]:
    """Names of LLaMA-Factory's own `dataset_info.json`: its configs use them, and LLF does not ship them."""
    return tuple(_data()["datasets"]["entries"])


@functools.cache
def _data() -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath("known.toml").read_text(encoding="utf-8"))
