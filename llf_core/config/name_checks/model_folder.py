"""Models on this machine: in Hugging Face's cache, and as results of runs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llf_core.config.field_specs import plain
from llf_core.config.name_checks.hub import Question
from llf_core.config.paths import expanded, is_there
from llf_core.config.rule import Fix
from llf_core.untrusted import MODEL_SETTINGS_BYTES, read_object_or_empty

if TYPE_CHECKING:
    from llf_core.config.field_specs import FieldSpec
    from llf_core.config.rule import Problem
    from llf_core.config.run_config import RunConfig


def folder_of(model: str, cache_dir: str | None = None) -> Path | None:
    """Local folder of a `model_name_or_path`, possibly in the cache; None for a single file or an empty name too."""
    here = expanded(model)
    return here if model and is_there(here) and here.is_dir() else snapshot(model, cache_dir)


def config_of(folder: Path) -> dict[str, Any]:
    """Read a model's `config.json`; empty if it cannot be read."""
    path = Path(os.path.realpath(folder / "config.json"))  # the cache of a hub has links
    return read_object_or_empty(path, MODEL_SETTINGS_BYTES)


def settings_of(folder: Path) -> dict[str, Any]:
    """Read the language model's settings: a `config.json`, or its `text_config`; empty if it cannot be read."""
    settings = config_of(folder)
    text = settings.get("text_config")
    return text if isinstance(text, dict) and text else settings


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


@dataclass(frozen=True)
class CheckResult:
    """Problems found on this machine, and questions for a hub."""

    problems: tuple[Problem, ...] = ()
    questions: tuple[Question, ...] = ()

    def __add__(self, other: CheckResult) -> CheckResult:
        return CheckResult(self.problems + other.problems, self.questions + other.questions)


def replacement_fixes(config: RunConfig, spec: FieldSpec, name: str, meant: str | None) -> tuple[Fix, ...]:
    """The fix that replaces a name in the value of a key with the one that was probably meant, if any."""
    if meant is None:
        return ()
    value = config.get(spec.key)
    several = isinstance(value, tuple)
    mended = plain(tuple(meant if one == name else one for one in value)) if several else meant
    return (Fix(f"Use {meant}", {spec.key: mended}),)


def question_with_hint(  # noqa: PLR0913, PLR0917 - the parts of a question
    kind: Literal["model", "dataset"], name: str, key: str, value: str, meant: str | None, fixes: tuple[Fix, ...]
) -> Question:
    """Create a question for a hub, whose hint is the name that was probably meant."""
    return Question(kind, name, key, value, f" Did you mean {meant!r}?" if meant else "", fixes)
