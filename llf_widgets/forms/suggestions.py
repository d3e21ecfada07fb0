"""Suggestions for data sets of this machine, and for models of this machine and of the catalog. No hub is queried."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.chat.kept_examples import kept_datasets
from llf_core.config.name_checks.data_sets import INFO_FILE, info_of
from llf_core.config.paths import expanded
from llf_core.data.sources import DEMO_FILES
from llf_core.untrusted import leads_to_file

if TYPE_CHECKING:
    from llf_core.model_catalog import CatalogModel

_DATA_SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")
_MOST = 50


@dataclass(frozen=True)
class Completions:
    """Values that complete a text, with a description of each, and a sentence on further ones."""

    options: tuple[tuple[str, str], ...]
    more: str = ""


def datasets(dataset_dir: str, here: Path | None = None) -> list[str]:
    """At most 50 values for `dataset`: built-in sets, names in `dataset_info.json`, rows kept in chats, data files.

    Args:
        here: folder for relative paths; None for the working directory.
    """
    folder = expanded(dataset_dir)
    here = here or Path.cwd()
    names = [*DEMO_FILES, *_named(folder / INFO_FILE), *(str(one.file) for one in kept_datasets())]
    for place in dict.fromkeys((here, folder)):
        files: list[Path] = []
        with suppress(OSError):
            files = sorted(file for file in place.iterdir() if file.suffix in _DATA_SUFFIXES and file.is_file())
        names += [str(file.relative_to(here)) if file.is_relative_to(here) else str(file) for file in files]
    return [name for name in dict.fromkeys(names) if name and Path(name).name != INFO_FILE][:_MOST]


def models(here: Path | None = None) -> list[str]:
    """At most 50 models of this machine: the embedded one, and GGUF files and model folders in `here`."""
    from llf_core.config.model import EMBEDDED

    here = here or Path.cwd()
    found = [
        entry.name
        for entry in sorted(here.iterdir())
        if entry.suffix == ".gguf" or leads_to_file(entry / "config.json")
    ]
    return [EMBEDDED, *(f"./{name}" for name in found)][:_MOST]


def complete_model(text: str, here: Path | None = None) -> Completions:
    """Complete the name of a model while it is typed: models of this machine first, then of the catalog.

    Args:
        text: parts of a name, in any order. Without text, only models of this machine are listed; for a whole name
            none.
    """
    from llf_core.model_catalog import find_model, search_models

    words = text.lower().split()
    local = [one for one in models(here) if all(word in one.lower() for word in words)]
    if not words:
        return Completions(tuple((one, "on this machine") for one in local))
    if text in local or find_model(text) is not None:
        return Completions(())
    known = search_models(words)
    options = [*((one, "on this machine") for one in local), *((one.id, _facts(one)) for one in known)]
    more = len(options) - _MOST
    return Completions(tuple(options[:_MOST]), f"{more} more: type another part of the name." if more > 0 else "")


def _facts(model: CatalogModel) -> str:
    return " · ".join(one for one in (model.size, model.license, "gated" if model.gated else "") if one)


def _named(info: Path) -> list[str]:
    try:
        return list(info_of(info))
    except (OSError, ValueError):
        return []
