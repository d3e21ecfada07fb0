"""From `model_name_or_path` to a model on this machine's disk."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from llf_core.config.paths import expanded
from llf_core.models.embedded import EMBEDDED, embedded_model
from llf_core.models.errors import ModelError
from llf_core.models.folder import card_license, check_files, check_shards, weight_files
from llf_core.models.gguf_header import read_gguf_header
from llf_core.models.source import ModelSource
from llf_core.runs import home

if TYPE_CHECKING:
    from pathlib import Path

    from llf_core.config import RunConfig

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+|[A-Za-z0-9][\w.-]*")


def resolve_model(name: str, config: RunConfig | None = None) -> ModelSource:
    """Finds a model, and fetches it where it is not here yet.

    Args:
        name: the embedded model's name, a folder, a `.gguf` file, or a hub id.
        config: for `model_revision`, `cache_dir`, `allow_pickle` and `trust_remote_code`; their defaults else.

    Returns:
        Where its files are. What is under `LLF_HOME` has no portable name, the embedded model excepted.

    Raises:
        ModelError: no such model, no weights, pickle only, gated, or no connection; one sentence with the remedy.
    """
    if name == EMBEDDED:
        return embedded_model()
    path = expanded(name)
    if path.exists():
        return _local(name, path.absolute(), allow_pickle=bool(config and config.model.allow_pickle))
    if _is_path(name) or HUB_ID.fullmatch(name) is None:
        raise ModelError(
            f"There is no model at {name}. Expected a folder with config.json and *.safetensors, a .gguf file, "
            f"a hub id such as owner/name, or {EMBEDDED}."
        )
    from llf_core.models.hub import hub_model

    return hub_model(name, config)


def portable_path(path: Path) -> str | None:
    """The path as a name for others; None for one under `LLF_HOME`, which may be cleaned at any time."""
    real, base = path.resolve(), home().resolve()
    return None if real == base or base in real.parents else str(path)


def _is_path(name: str) -> bool:
    return name.startswith(("/", ".", "~")) or name.count("/") > 1 or name.lower().endswith(".gguf")


def _local(name: str, path: Path, *, allow_pickle: bool) -> ModelSource:
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise ModelError(f"{name} is a file of type {path.suffix or 'unknown'}. Expected a folder or a .gguf file.")
        named = read_gguf_header(path).values.get("general.license")
        return ModelSource(name, path, "gguf", license=named, portable_name=portable_path(path.parent))
    files = [file.name for file in path.iterdir() if file.is_file()]
    safe, pickles, ggufs = weight_files(files)
    if len(ggufs) == 1 and not safe and not pickles:
        return _local(name, path / ggufs[0], allow_pickle=allow_pickle)
    check_files(name, files, allow_pickle=allow_pickle)
    check_shards(path)
    return ModelSource(name, path, "folder", license=card_license(path), portable_name=portable_path(path))
