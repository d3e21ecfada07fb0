"""The folder of a model that is here, and what its `config.json` says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from llf_core.config.name_checks.hub_cache import snapshot
from llf_core.config.paths import expanded, is_there
from llf_core.door import read_object_or_empty


def folder_of(model: str, cache_dir: str | None = None) -> Path | None:
    """Where a model lies on this machine; None where it does not, or is one file.

    Args:
        model: `model_name_or_path`.
        cache_dir: `cache_dir` of a config.
    """
    here = expanded(model)
    return here if is_there(here) and here.is_dir() else snapshot(model, cache_dir)


def config_of(folder: Path) -> dict[str, Any]:
    """What a model's `config.json` says; empty where it cannot be read."""
    return read_object_or_empty(Path(os.path.realpath(folder / "config.json")))  # the cache of a hub has links


def settings_of(folder: Path) -> dict[str, Any]:
    """What a model's `config.json` says, of one that sees the part about text; empty where it cannot be read."""
    settings = config_of(folder)
    text = settings.get("text_config")
    return text if isinstance(text, dict) and text else settings
