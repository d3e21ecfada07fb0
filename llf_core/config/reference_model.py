"""The reference model of a config."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llf_core.config.values import ConfigValues

REFERENCE = ("ref_model", "ref_model_adapters", "ref_model_quantization_bit")
"""Keys that name another reference model than the initial one."""


def names_reference(config: ConfigValues) -> bool:
    """Whether a config names another reference model than the initial one, which has to be loaded then.

    It is another one by its name, its adapters or its quantization.
    """
    return any(config.get(key) is not None for key in REFERENCE)


def named_reference(config: ConfigValues) -> str | None:
    """`ref_model` if it names a model that is loaded beside the trained one; else None. For the memory forecast."""
    return "ref_model" if config.get("ref_model") else None
