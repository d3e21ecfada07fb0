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
"""Maximum characters of a path in a message."""
MOST = 500
"""Maximum number of entries of a folder to search for suggestions."""


def check_paths(config: RunConfig, spec: FieldSpec) -> CheckResult:
    """Check that the absolute paths in the value of a key exist, see `absent`."""
    value = config.get(spec.key)
    found = CheckResult()
    for name in value if isinstance(value, tuple) else (value,):
        if name and Path(name).is_absolute() and not is_there(Path(name)):
            found += absent(Path(name), name, config, spec)
    return found


def absent(path: Path, name: str, config: RunConfig, spec: FieldSpec) -> CheckResult:
    """Report a path that does not exist: an error if it misspells a name in its parent folder, else a warning."""
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
