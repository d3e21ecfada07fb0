"""Cache of prepared data sets under `LLF_HOME/cache/data`, keyed by everything that determines their examples."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.runs import home

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedTokenizerBase

VERSION = 5
"""Version of the cache; increased when the same settings would give other examples."""
DONE_FILE = "report.json"


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of everything that determines how a tokenizer splits text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    core = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    rest = [type(tokenizer).__name__, repr(sorted(tokenizer.special_tokens_map.items()))]
    return hashlib.sha256("\0".join([core, *rest]).encode("utf-8", "backslashreplace")).hexdigest()


def cache_key(parts: dict[str, Any]) -> str:
    """Hash of the parts, as 32 hexadecimal digits."""
    text = json.dumps({"version": VERSION, **parts}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def cached_folder(key: str, make: Callable[[Path], None], *, anew: bool = False) -> tuple[Path, bool]:
    """Return the folder of a prepared data set, and build it if it is missing.

    A second process that needs the same folder waits for the first. The folder appears complete under its name, or not
    at all.

    Args:
        key: from `cache_key`.
        make: fills an empty folder; its last file is `report.json`.
        anew: build it again even if it is cached.

    Returns:
        The folder, and whether it was cached.
    """
    from llf_core.runs.lock import shared_lock

    base = home() / "cache" / "data"
    base.mkdir(parents=True, exist_ok=True)
    folder = base / key
    with shared_lock(f"data-{key}", "Another process prepares the same data. Waiting for it."):
        if (folder / DONE_FILE).is_file() and not anew:
            return folder, True
        partial = Path(tempfile.mkdtemp(dir=base, prefix=f".{key}-"))
        try:
            make(partial)
            if folder.exists():
                # Readers that map the old files keep them; the name goes to the new ones.
                shutil.rmtree(folder)
            partial.rename(folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    return folder, False
