"""Decides whether Python code of a model runs: the only place that reads `trust_remote_code`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.runs import home
from llf_core.runs.foreign_code import runs_code

if TYPE_CHECKING:
    from llf_core.config import RunConfig
    from llf_core.models.model_source import ModelSource


def resolve_trust_remote_code(source: ModelSource, config: RunConfig, *, trusted: bool = False) -> bool:
    """Value of `trust_remote_code` for transformers' loaders, so that code runs only where the user has allowed it.

    Args:
        source: a model, adapter or result. A GGUF file contains no code.
        trusted: whether code may run that has not been allowed yet, for a program that asks nobody, as a server.
    """
    if source.kind == "gguf":
        return False
    if trusted:
        return config.model.trust_remote_code
    return runs_code(source.folder, home(), trust_remote_code=config.model.trust_remote_code)
