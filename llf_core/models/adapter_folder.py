"""Finds adapters: local folders, subfolders of them, and repositories of a hub."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.name_checks.models import is_path, may_be_hub_id, meant_instead, shown_name
from llf_core.config.paths import expanded, is_there
from llf_core.models.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

    from llf_core.config import RunConfig

SAFETENSORS_FILE, PICKLE_FILE = "adapter_model.safetensors", "adapter_model.bin"
MAX_LISTED = 5


def find_adapter(name: str, config: RunConfig) -> Path:
    """Find an adapter: a local folder, the `output` of a run, or a hub repository, which is downloaded if needed.

    Its content is not checked.

    Raises:
        ModelError: it does not exist, lacks its config, weights or `adapter_folder`, or has only pickle, and
            `allow_pickle` is off.
    """
    folder = expanded(name)
    if not name.strip() or not is_there(folder):
        if is_path(name) or "/" not in name or not may_be_hub_id(name):
            raise ModelError(
                f"No adapter at {shown_name(name)}. Expected a folder with adapter_config.json, or a hub id."
                f"{meant_instead(name, config.model.cache_dir)}"
            )
        from llf_core.models.hub import hub_adapter

        folder = hub_adapter(name, config)
    folder = _subfolder(folder, name, config)
    if not (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"{name} has no adapter_config.json, so it is not an adapter. Expected a folder that PEFT saved, such as "
            "the output of a LoRA run."
        )
    if not (folder / SAFETENSORS_FILE).is_file():
        if not (folder / PICKLE_FILE).is_file():
            raise ModelError(f"{name} has no {SAFETENSORS_FILE}. Copy or download the adapter again.")
        check_pickle(folder, name, config)
    return folder


def check_pickle(folder: Path, name: str, config: RunConfig) -> None:
    """Refuse an adapter that has its weights only as pickle, unless the config allows that."""
    if (folder / SAFETENSORS_FILE).is_file() or not (folder / PICKLE_FILE).is_file() or config.model.allow_pickle:
        return
    raise ModelError(
        f"{name} has its weights only as pickle ({PICKLE_FILE}), which can run code while it loads. "
        "Set allow_pickle: true if you trust its source."
    )


def _subfolder(folder: Path, name: str, config: RunConfig) -> Path:
    """The subfolder `adapter_folder` of an adapter's folder; other adapters than those it is for may have none."""
    inside = config.model.adapter_folder
    if inside is None:
        return folder
    found = folder / inside
    if not (inside.startswith("/") or ".." in found.parts) and is_there(found) and found.is_dir():
        return found
    if name not in (config.model.adapter_name_or_path or ()):
        return folder
    others = sorted(path.parent.name for path in folder.glob("*/adapter_config.json"))
    has = f" It has adapters in {', '.join(others[:MAX_LISTED])}." if others else ""
    raise ModelError(
        f"{shown_name(name)} has no subfolder {shown_name(inside)} (adapter_folder).{has} Expected a subfolder with "
        "adapter_config.json, or no adapter_folder."
    )


def without_adapter_folder(config: RunConfig) -> RunConfig:
    """Replace the adapters of a config by the subfolders that `adapter_folder` selects, so that others can be added."""
    if config.model.adapter_folder is None:
        return config
    keys = [key for key in ("adapter_name_or_path", "ref_model_adapters") if config.get(key)]
    found = {key: [str(find_adapter(name, config)) for name in config.get(key)] for key in keys}
    return config.replace(adapter_folder=None, **found)
