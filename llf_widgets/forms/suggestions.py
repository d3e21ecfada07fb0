"""Suggestions for models and data sets from this machine, without querying a hub."""

from __future__ import annotations

import json
from pathlib import Path

from llf_core.config.paths import expanded
from llf_core.data.sources import DEMO_FILES

_DATA_SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")
_MOST = 50


def datasets(dataset_dir: str, here: Path | None = None) -> list[str]:
    """Data sets that this machine has: built-in ones, names in `dataset_info.json`, and data files.

    Args:
        dataset_dir: folder of `dataset_info.json`.
        here: folder for relative paths. Default: the working directory.

    Returns:
        At most 50 values for `dataset`.

    Raises:
        OSError: a folder cannot be listed.
    """
    folder = expanded(dataset_dir)
    here = here or Path.cwd()
    names = [*DEMO_FILES, *_named(folder / "dataset_info.json")]
    for place in dict.fromkeys((here, folder)):
        if not place.is_dir():
            continue
        files = sorted(file for file in place.iterdir() if file.suffix in _DATA_SUFFIXES and file.is_file())
        names += [str(file.relative_to(here)) if file.is_relative_to(here) else str(file) for file in files]
    return [name for name in dict.fromkeys(names) if Path(name).name != "dataset_info.json"][:_MOST]


def models(here: Path | None = None) -> list[str]:
    """Models that this machine has: the embedded one, GGUF files and model folders.

    Args:
        here: folder to look in. Default: the working directory.

    Returns:
        At most 50 values for `model_name_or_path`.

    Raises:
        OSError: the folder cannot be listed.
    """
    from llf_core.config.model import EMBEDDED

    here = here or Path.cwd()
    found = [
        entry.name for entry in sorted(here.iterdir()) if entry.suffix == ".gguf" or (entry / "config.json").is_file()
    ]
    return [EMBEDDED, *(f"./{name}" for name in found)][:_MOST]


def _named(info: Path) -> list[str]:
    try:
        named = json.loads(info.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    return list(named) if isinstance(named, dict) else []
