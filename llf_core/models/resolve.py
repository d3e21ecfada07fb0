from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.name_checks.models import is_path, may_be_hub_id, meant_instead, shown_name
from llf_core.config.paths import expanded, is_there
from llf_core.models.embedded_model import EMBEDDED, embedded_model
from llf_core.models.errors import ModelError
from llf_core.models.gguf_header import read_gguf_header
from llf_core.models.header_check import check_sizes
from llf_core.models.model_folder import card_license, check_files, check_shards, weight_files
from llf_core.models.model_source import ModelSource
from llf_core.runs import home
from llf_core.untrusted import real_path

if TYPE_CHECKING:
    from pathlib import Path

    from llf_core.config import RunConfig


def resolve_model(name: str, config: RunConfig | None = None, *, weights: bool = True) -> ModelSource:
    """Find a model, download it if it is not on this machine, and check its files by their headers.

    Args:
        name: name of the embedded model, a folder, a `.gguf` file, or a hub id.
        config: None for the defaults.
        weights: whether weights are needed; if not, they may be missing, and a hub's are not downloaded.

    Returns:
        The source. A model under `LLF_HOME` has no portable name, except for the embedded model.

    Raises:
        ModelError: no such model, no weights, weights only as pickle, gated, or no connection.
    """
    if name == EMBEDDED:
        return embedded_model()
    weights = weights and not (config and config.model.train_from_scratch)  # random ones in their place
    path = expanded(name)
    if name.strip() and is_there(path):
        allow_pickle = bool(config and config.model.allow_pickle)
        return _local(name, path.absolute(), allow_pickle=allow_pickle, weights=weights)
    if is_path(name) or not may_be_hub_id(name):
        raise ModelError(
            f"No model at {shown_name(name)}. Expected a folder with config.json and *.safetensors, a .gguf "
            f"file, a hub id such as owner/name, or {EMBEDDED}."
            f"{meant_instead(name, config.model.cache_dir if config else None)}"
        )
    from llf_core.models.hub import hub_model

    return hub_model(name, config, weights=weights)


def _portable_path(path: Path) -> str | None:
    """The path; None under `LLF_HOME`, which may be cleaned, so that an adapter would lose its base."""
    real, base = real_path(path), real_path(home())
    return None if real == base or base in real.parents else str(path)


def _local(name: str, path: Path, *, allow_pickle: bool, weights: bool) -> ModelSource:
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise ModelError(f"{name} is a file of type {path.suffix or 'unknown'}. Expected a folder or a .gguf file.")
        named = read_gguf_header(path).values.get("general.license")
        license_ = named if isinstance(named, str) else None
        return ModelSource(name, path, "gguf", license=license_, portable_name=_portable_path(path.parent))
    if not path.is_dir():
        raise ModelError(f"{name} is neither a regular file nor a folder. Expected a folder or a .gguf file.")
    files = [file.name for file in path.iterdir() if file.is_file()]
    safe, pickles, ggufs = weight_files(files)
    if len(ggufs) == 1 and not safe and not pickles:
        return _local(name, path / ggufs[0], allow_pickle=allow_pickle, weights=weights)
    check_files(name, files, allow_pickle=allow_pickle, weights=weights)
    if weights:
        check_shards(path)
        check_sizes(path)
    return ModelSource(name, path, "folder", license=card_license(path), portable_name=_portable_path(path))
