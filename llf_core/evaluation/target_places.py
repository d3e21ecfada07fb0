"""Where the results of a target are kept, and the key of its weights."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.config.paths import expanded, is_there
from llf_core.runs import RunFolder, open_run
from llf_core.runs.evaluations import model_evaluations

if TYPE_CHECKING:
    from llf_core.chat.target import Target

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".gguf", ".pt")


def run_of(target: Target, home: Path | str | None = None) -> RunFolder | None:
    """The run that a target belongs to, in whose folder its results are kept; None for none."""
    if not target.run_id:
        return None
    try:
        return open_run(target.run_id, home)
    except (ValueError, FileNotFoundError):  # a run outside of LLF_HOME, named by its path
        for parent in Path(target.adapter or target.model).parents:
            if parent.name == target.run_id and (parent / "status.json").is_file():
                return RunFolder(parent)
    return None


def shared_place(target: Target, home: Path | str | None = None) -> Path:
    """Folder of the results of a model that belongs to no run, or that several runs share."""
    key = hashlib.sha256(json.dumps([target.config, target.adapter]).encode()).hexdigest()[:16]
    return model_evaluations(key, home)


def _weights_facts(folder: Path) -> list[object]:
    """Changes with the weights in a folder: checksums of a run's result, else names, sizes and times of files."""
    record = folder.parent / "output.json"
    if folder.name == "output" and record.is_file():
        return [hashlib.sha256(record.read_bytes()).hexdigest()]
    files = [folder] if folder.is_file() else sorted(folder.iterdir()) if folder.is_dir() else []
    kept = [file for file in files if file.suffix in WEIGHT_SUFFIXES and file.is_file()]
    return [[file.name, (facts := file.stat()).st_size, facts.st_mtime_ns] for file in kept]


def weights_key(target: Target, model_folder: Path, rendering: str) -> str:
    """Key of the weights, loading settings and rendered examples of a target: 16 hexadecimal digits of a SHA-256."""
    adapter = target.adapter if target.adapter is not None and is_there(expanded(target.adapter)) else None
    what: list[object] = [target.config, str(model_folder), _weights_facts(model_folder), rendering]
    what += [target.adapter] if adapter is None else _weights_facts(expanded(adapter))
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]
