"""Whether models and adapters that a config names are there."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.config.model import EMBEDDED
from llf_core.config.names import known
from llf_core.config.names.cache import cached
from llf_core.config.names.found import Found, hint_of, using
from llf_core.config.nearest import misspelt, nearest
from llf_core.config.problem import Problem
from llf_core.config.spec import plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from llf_core.config.run_config import RunConfig
    from llf_core.config.spec import FieldSpec

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9_][\w.-]*)?")
MOST = 500
"""Entries of a folder that are looked at for what may have been meant."""
MARKS = ("config.json", "adapter_config.json")


def is_path(name: str) -> bool:
    """Whether a name can only be a path: it is then judged by whether this machine has it."""
    return name.startswith(("/", ".", "~")) or name.count("/") > 1 or name.lower().endswith(".gguf")


def look_for_models(config: RunConfig, spec: FieldSpec, folders: Iterable[Path], runs: Iterable[str]) -> Found:
    """Judges each name of a key.

    Args:
        config: the config.
        spec: a field of models or adapters.
        folders: where models of this machine may lie.
        runs: ids of runs, which a reward model may be.
    """
    value = config.get(spec.key)
    names = value if isinstance(value, tuple) else (value,) if value else ()
    found = Found()
    for name in names:
        found += _look(name, config, spec, tuple(folders), tuple(runs) if spec.key == "reward_model" else ())
    return found


def _look(name: str, config: RunConfig, spec: FieldSpec, folders: tuple[Path, ...], runs: tuple[str, ...]) -> Found:
    if name == EMBEDDED or name in runs or "://" in name or is_path(name) or Path(name).exists():
        return Found()
    here = tuple(local_models(folders))
    stored = cached("model", config.model.cache_dir)
    if name in stored or name in known.models():
        return Found()
    near_home = (EMBEDDED, *here, *runs)
    plain_value = str(plain(config.get(spec.key)))
    slip = None if "/" in name else misspelt(name, near_home)
    meant = slip or nearest(name, (*near_home, *stored, *known.models()))
    fixes = using(config, spec, name, meant)
    if slip is None and HUB_ID.fullmatch(name):
        return Found(questions=(hint_of("model", name, spec.key, plain_value, meant, fixes),))
    wrong = "" if slip else " A hub id has the form owner/name."
    mean = f" Did you mean {meant!r}?" if meant else ""
    message = f"There is no model {name!r}: no such folder, and no name that LLF knows.{wrong}{mean}"
    return Found((Problem("unresolved", spec.key, plain_value, message, fixes, keys=(spec.key,)),))


def local_models(folders: Iterable[Path]) -> Iterator[str]:
    """Folders with a model or an adapter, and GGUF files, by their names in each of some folders."""
    for folder in dict.fromkeys(folders):
        try:
            for entry in islice(folder.iterdir(), MOST):
                if entry.suffix == ".gguf" or any((entry / mark).is_file() for mark in MARKS):
                    yield entry.name
        except OSError:
            continue
