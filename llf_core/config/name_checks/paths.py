"""Checks that the paths in a config exist."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.config.did_you_mean import misspelt, nearest
from llf_core.config.field_specs import plain
from llf_core.config.name_checks.results import CheckResult, replacement_fixes
from llf_core.config.paths import is_there
from llf_core.config.problem import Problem

if TYPE_CHECKING:
    from llf_core.config.field_specs import FieldSpec
    from llf_core.config.run_config import RunConfig

LONGEST_SHOWN = 200
"""Characters of a path that a message repeats."""
MOST = 500
"""Entries of a folder that are looked at for what may have been meant."""


def check_paths(config: RunConfig, spec: FieldSpec) -> CheckResult:
    """Check that the absolute paths in the value of a key exist.

    The trainer would find a missing one only after it has started.

    Returns:
        A warning for each missing path, since the config may be meant for another machine; an error if the name is a
        misspelling of an entry of the parent folder.
    """
    value = config.get(spec.key)
    found = CheckResult()
    for name in value if isinstance(value, tuple) else (value,):
        if name and Path(name).is_absolute() and not is_there(Path(name)):
            found += absent(Path(name), name, config, spec)
    return found


def absent(path: Path, name: str, config: RunConfig, spec: FieldSpec) -> CheckResult:
    """Report a path in a config that does not exist, with the name that was probably meant.

    Returns:
        One problem, with the most similar name in the parent folder, if any, as its fix: an error if the path is a
        misspelling of that name, else a warning.
    """
    siblings = _names(path.parent)
    slip = misspelt(path.name, siblings)
    meant = slip or nearest(path.name, siblings)
    mean = f" Did you mean {meant!r}?" if meant else ""
    problem = Problem(
        "unresolved",
        spec.key,
        str(plain(config.get(spec.key))),
        f"No such file or folder: {_shown(path)}.{mean}",
        replacement_fixes(config, spec, name, None if meant is None else str(path.with_name(meant))),
        "error" if slip else "warning",
        keys=(spec.key,),
    )
    return CheckResult((problem,))


def _shown(path: Path) -> str:
    text = str(path)
    text = text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"
    return text if text.isprintable() else repr(text)


def _names(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in islice(folder.iterdir(), MOST))
    except (OSError, ValueError):  # a name that no folder has
        return []
