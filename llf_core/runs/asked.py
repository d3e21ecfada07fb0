"""What a run was asked for: its `config.yaml`, for those who only look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from pathlib import Path

    from llf_core.runs.folder import RunFolder


def read_config(path: Path) -> dict[str, Any]:
    """The flat keys of a `config.yaml`; empty where the file is missing or is no mapping."""
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return config if isinstance(config, dict) else {}


def changed_config(folder: RunFolder) -> dict[str, Any]:
    """What the run asks for that is no default; all there is where its config is broken or of another version."""
    from llf_core.config import ConfigError, RunConfig

    try:
        return RunConfig.load(folder.config).flat()
    except (ConfigError, OSError, RecursionError):
        return read_config(folder.config)
