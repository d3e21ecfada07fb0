"""Cache of prepared data sets under `LLF_HOME/cache/data`, keyed by everything that determines their examples."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.runs import home

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from transformers import PreTrainedTokenizerBase

VERSION = 8
"""Version of the cache; increased when the same settings would give other examples."""
DONE_FILE = "report.json"
KEY = re.compile(r"[0-9a-f]{32}")


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 (hexadecimal) of everything that determines how a tokenizer splits text.

    A tokenizer written in Python is identified by the files that it saves.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    core = backend.to_str() if backend is not None else _saved_vocabulary(tokenizer)
    rest = [type(tokenizer).__name__, repr(sorted(tokenizer.special_tokens_map.items()))]
    return hashlib.sha256("\0".join([core, *rest]).encode("utf-8", "backslashreplace")).hexdigest()


def _saved_vocabulary(tokenizer: PreTrainedTokenizerBase) -> str:
    with tempfile.TemporaryDirectory(prefix="llf-tokenizer-") as folder:
        paths = sorted(Path(path) for path in tokenizer.save_vocabulary(folder))
        saved = [(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in paths]
    return json.dumps([tokenizer.get_vocab(), saved], sort_keys=True)


def cache_key(parts: Mapping[str, object]) -> str:
    """Hash everything that determines the examples, and the version of the cache, to 32 hexadecimal digits."""
    text = json.dumps({"version": VERSION, **parts}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def cached_folder(key: str, make: Callable[[Path], None], *, rebuild: bool = False) -> tuple[Path, bool]:
    """Return the folder of a prepared data set, and whether it was cached; build it if it is missing.

    Another process that needs the same folder waits. A folder under its final name is always complete.

    Args:
        make: fills an empty folder; its last file is `report.json`.
        rebuild: build it again even if it is cached.
    """
    from llf_core.runs.lock import shared_lock

    if not KEY.fullmatch(key):
        msg = f"{key!r} is not a key of `cache_key`. Expected 32 hexadecimal digits."
        raise ValueError(msg)
    base = home() / "cache" / "data"
    base.mkdir(parents=True, exist_ok=True)
    folder = base / key
    with shared_lock(f"data-{key}", "Another process prepares the same data. Waiting for it."):
        if (folder / DONE_FILE).is_file() and not rebuild:
            return folder, True
        partial = Path(tempfile.mkdtemp(dir=base, prefix=f".{key}-"))
        try:
            make(partial)
            if folder.exists():
                # Processes that have mapped the old files keep them, although their names are gone.
                shutil.rmtree(folder)
            partial.rename(folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    return folder, False
