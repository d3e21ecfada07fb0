"""Whether paths that a config names are on this machine."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.config.names.found import Found, using
from llf_core.config.nearest import misspelt, nearest
from llf_core.config.problem import Problem
from llf_core.config.spec import plain

if TYPE_CHECKING:
    from llf_core.config.run_config import RunConfig
    from llf_core.config.spec import FieldSpec

MOST = 500
"""Entries of a folder that are looked at for what may have been meant."""


def look_for_paths(config: RunConfig, spec: FieldSpec) -> Found:
    """A warning for each path that this machine does not have, since the config may be good on another one.

    It is an error where its folder has a name that differs by a slip.
    """
    value = config.get(spec.key)
    problems = []
    for name in value if isinstance(value, tuple) else (value,):
        if not name or not Path(name).is_absolute() or Path(name).exists():
            continue
        siblings = _names(Path(name).parent)
        slip = misspelt(Path(name).name, siblings)
        meant = slip or nearest(Path(name).name, siblings)
        whole = None if meant is None else str(Path(name).with_name(meant))
        mean = f" Did you mean {meant!r}?" if meant else ""
        problems.append(
            Problem(
                "unresolved",
                spec.key,
                str(plain(value)),
                f"This machine has no file or folder {name}.{mean}",
                using(config, spec, name, whole),
                "error" if slip else "warning",
                keys=(spec.key,),
            )
        )
    return Found(tuple(problems))


def _names(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in islice(folder.iterdir(), MOST))
    except OSError:
        return []
