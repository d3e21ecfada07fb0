from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.runs import home
from llf_core.runs.foreign_code import runs_code

if TYPE_CHECKING:
    from llf_core.config import RunConfig
    from llf_core.models.model_source import ModelSource


def resolve_trust_remote_code(source: ModelSource, config: RunConfig, *, trusted: bool = False) -> bool:
    """Value of `trust_remote_code` for transformers' loaders: the only place that reads the key.

    Args:
        trusted: whether to skip asking the user, as a server must.
    """
    if source.kind == "gguf":
        return False
    if trusted:
        return config.model.trust_remote_code
    return runs_code(source.folder, home(), trust_remote_code=config.model.trust_remote_code)
