from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from llf_core.config.name_checks.hub_cache import snapshot
from llf_core.config.paths import expanded, is_there
from llf_core.untrusted import MODEL_SETTINGS_BYTES, read_object_or_empty


def folder_of(model: str, cache_dir: str | None = None) -> Path | None:
    """Local folder of a `model_name_or_path`, possibly in the cache; None for a single file or an empty name too."""
    here = expanded(model)
    return here if model and is_there(here) and here.is_dir() else snapshot(model, cache_dir)


def config_of(folder: Path) -> dict[str, Any]:
    """Read a model's `config.json`; empty if it cannot be read."""
    path = Path(os.path.realpath(folder / "config.json"))  # the cache of a hub has links
    return read_object_or_empty(path, MODEL_SETTINGS_BYTES)


def settings_of(folder: Path) -> dict[str, Any]:
    """Read the language model's settings: a `config.json`, or its `text_config`; empty if it cannot be read."""
    settings = config_of(folder)
    text = settings.get("text_config")
    return text if isinstance(text, dict) and text else settings
