"""Locates data sets: entry of `dataset_info.json`, built-in demo, URL, path or hub id."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llf_core.config.paths import expanded, is_there

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DEMO, DEMO_PAIRS = "llf_demo", "llf_demo_pairs"
SHIPPED = (DEMO, DEMO_PAIRS)
"""Data sets that come with LLF."""
INFO_FILE = "dataset_info.json"


@dataclass(frozen=True)
class Place:
    """Location of a data set, by its name; `path` is the file or folder of the kind `path`."""

    kind: Literal["entry", "shipped", "url", "path", "hub", "nowhere"]
    path: Path | None = None


def locate(name: str, base: Path, info: Mapping[str, object], folders: Sequence[Path] = ()) -> Place:
    """Resolve the name of a data set: an entry, a data set of LLF, a URL, a path, or a hub id; the first that fits.

    Args:
        base: `dataset_dir`.
        info: the entries of its `dataset_info.json`.
        folders: folders to search for relative paths, after the working directory and before `base`.
    """
    if name in info:
        return Place("entry")
    if name in SHIPPED:
        return Place("shipped")
    if "://" in name:
        return Place("url")
    for folder in (Path(), *folders, base):
        path = folder / expanded(name)
        if is_there(path):
            return Place("path", path)
    return Place("hub" if _is_hub_id(name) else "nowhere")


def _is_hub_id(name: str) -> bool:
    owner, slash, repository = name.partition("/")
    return bool(slash and owner and repository) and "/" not in repository and not name.startswith((".", "~"))


def info_of(path: Path) -> dict[str, Any]:
    """Read the entries of a `dataset_info.json`, as of LLaMA-Factory; empty if there is no such regular file.

    Raises:
        ValueError: it is not a JSON object; the text is a sentence for the user.
    """
    if not path.is_file():
        return {}
    try:
        info = json.loads(path.read_text(encoding="utf-8-sig"))  # Windows may begin it with a mark
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}.") from None
    if not isinstance(info, dict):
        raise ValueError(f"{path} is not a JSON object. Expected an object that maps data set names to entries.")  # noqa: TRY004
    return info
