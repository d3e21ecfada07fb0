"""Content of the local Hugging Face cache, and whether a token is stored."""

from __future__ import annotations

import os
from pathlib import Path

from llf_core.config.paths import expanded


def cached(kind: str, cache_dir: str | None = None) -> tuple[str, ...]:
    """Ids of the repositories that have a snapshot in the cache.

    Args:
        kind: `model` or `dataset`.
        cache_dir: `cache_dir` of a config. Default: the client's own folder.
    """
    try:
        folders = [one for one in _cache(cache_dir).glob(f"{kind}s--*") if any((one / "snapshots").glob("*"))]
    except OSError:  # a folder that cannot be listed counts as empty
        return ()
    return tuple(sorted(one.name.removeprefix(f"{kind}s--").replace("--", "/") for one in folders))


def snapshot(model: str, cache_dir: str | None = None) -> Path | None:
    """Newest cached snapshot of a model, by its hub id; None if it is not cached."""
    found = snapshots(model, cache_dir)
    return found[-1] if found else None


def snapshots(model: str, cache_dir: str | None = None) -> tuple[Path, ...]:
    """Folders of the cached snapshots of a model, one for each downloaded commit, the newest last.

    Each may be loaded, so the code of all of them is shown before any runs.
    """
    folder = _cache(cache_dir) / f"models--{model.replace('/', '--')}" / "snapshots"
    try:
        return tuple(sorted(filter(Path.is_dir, folder.iterdir()), key=lambda one: one.stat().st_mtime))
    except (OSError, ValueError):
        return ()


def _cache(cache_dir: str | None) -> Path:
    if cache_dir:
        return Path(cache_dir)
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(name):
            return expanded(os.environ[name])
    return _client_home() / "hub"


def has_token() -> bool:
    """Whether the hub's client has a token, in the environment or in the file that a login writes."""
    if any((os.environ.get(name) or "").strip() for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")):
        return True
    path = os.environ.get("HF_TOKEN_PATH")
    file = expanded(path) if path else _client_home() / "token"
    try:
        return bool(file.read_text(encoding="utf-8").strip())
    except (OSError, ValueError):
        return False


def _client_home() -> Path:
    home = os.environ.get("HF_HOME")
    if not home:
        home = str(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    return expanded(home)
