"""Models of random numbers, in the shapes of real ones."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

from benchmarks.processes import module, plain_environment, run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def random_model(
    folder: Path, base: Path, shape: Mapping[str, Any], device: str = "cpu", timeout: float | None = None
) -> Path:
    """Makes a folder with a Llama of that shape, random weights in bfloat16, and a base's tokenizer.

    Args:
        shape: keys of `config.json`.
        timeout: seconds, see `processes.run`.
    """
    folder.mkdir(parents=True)
    for file in base.iterdir():
        if file.suffix in (".json", ".jinja", ".txt") and file.name not in ("model.safetensors.index.json", "llf.json"):
            shutil.copy(file, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | dict(shape)))
    log = folder.with_suffix(".log")
    try:
        run(module("benchmarks.runners.random_model", folder, device), plain_environment(), log, timeout)
    except (RuntimeError, TimeoutError):
        shutil.rmtree(folder)
        raise
    return folder
