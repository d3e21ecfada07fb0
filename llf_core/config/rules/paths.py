"""Warnings for paths that this machine does not have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.config.rule import Rule

if TYPE_CHECKING:
    from llf_core.config.run_config import RunConfig


def absent(key: str) -> Rule:
    """A warning for a path that this machine does not have: the config may be good on another one."""

    def paths(c: RunConfig) -> list[str]:
        value = c.get(key)
        values = value if isinstance(value, tuple) else (value,)
        return [one for one in values if one and Path(one).is_absolute() and not Path(one).exists()]

    return Rule(
        (key,),
        lambda c: bool(paths(c)),
        lambda c: f"This machine has no file or folder {paths(c)[0]}.",
        severity="warning",
    )


PATHS = tuple(absent(key) for key in ("model_name_or_path", "adapter_name_or_path", "dataset", "eval_dataset"))
