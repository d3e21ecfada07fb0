"""Keeps the dequantized weights of GGUF files under `LLF_HOME/cache/gguf`: only the first start computes them."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import math
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.models.embedded_model import prepare_folder
from llf_core.models.errors import ModelError, first_line, missing_package
from llf_core.models.gguf_conversion import cached_gguf_reader, read_gguf_model
from llf_core.models.gguf_header import read_gguf_header
from llf_core.models.lazy_imports import no_progress_bars
from llf_core.runs import free_bytes, home
from llf_core.runs.files import json_bytes
from llf_core.untrusted import real_path

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

MADE = "llf.json"
MARGIN = 1.1
"""Bytes that must be free on the disk, as a multiple of the weights'."""


def dequantized_folder(gguf: Path, dtype: torch.dtype) -> Path | None:
    """Find the weights of a GGUF file in a dtype as a model folder; dequantize and keep them if they are not there.

    They are made again if the file or a library that reads it has changed. None if they cannot be stored, which is
    logged.
    """
    name = str(dtype).removeprefix("torch.")
    path = real_path(gguf)
    made = _identity(path, name)
    base = home() / "cache" / "gguf"
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:16]
    folder = base / f"{gguf.stem[:60]}-{digest}-{name}"
    if not _is_made(made, folder):
        _forget_lost_files(base)
        size = sum(map(math.prod, read_gguf_header(gguf).shapes.values())) * dtype.itemsize
        try:
            room = free_bytes()
        except OSError:
            room = 0
        if room < MARGIN * size:
            logger.warning(
                f"{gguf.name} is dequantized at each start: its weights take {size / 1e9:,.1f} GB in {name}, and "
                f"{room / 1e9:,.1f} GB are free under {base}."
            )
            return None
    try:
        prepare_folder(
            folder,
            is_whole=functools.partial(_is_made, made),
            make=functools.partial(_make, gguf, dtype, made),
            lock=f"gguf-{digest}-{name}",
            waiting=f"Waiting for another process that dequantizes {gguf.name}.",
        )
    except OSError as error:
        logger.warning(f"{gguf.name} is dequantized at each start: {folder} cannot be written ({error}).")
        return None
    return folder


def _identity(path: Path, dtype: str) -> dict[str, object]:
    """What a folder is made from; it is made again if that changes."""
    try:
        import gguf  # noqa: F401 - version() would not say that it is missing
    except ImportError as error:
        raise ModelError(missing_package(error)) from error
    stat = path.stat()
    return {
        "format": 1,
        "gguf": str(path),
        "size": stat.st_size,
        "time": stat.st_mtime_ns,
        "dtype": dtype,
        "transformers": version("transformers"),
        "reader": version("gguf"),
    }


def _is_made(made: dict[str, object], folder: Path) -> bool:
    return _read(folder) == made


def _read(folder: Path) -> dict[str, object]:
    """What a folder was made from; empty if it is not whole."""
    try:
        found = json.loads((folder / MADE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _make(gguf: Path, dtype: torch.dtype, made: dict[str, object], work: Path) -> Path:
    ready = work / "ready"
    logger.info(f"Dequantizing {gguf.name} to {made['dtype']}, once for all starts …")
    with no_progress_bars(), cached_gguf_reader():
        try:
            model = read_gguf_model(gguf, dtype)
        except ValueError as error:
            raise ModelError(f"{gguf} cannot be loaded: {first_line(error)}") from error
        model.save_pretrained(ready)
    (ready / MADE).write_bytes(json_bytes(made))
    return ready


def _forget_lost_files(base: Path) -> None:
    for folder in base.glob("*") if base.is_dir() else ():
        source = _read(folder).get("gguf")
        if isinstance(source, str) and not Path(source).exists():
            shutil.rmtree(folder, ignore_errors=True)
