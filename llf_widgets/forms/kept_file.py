"""The file of the settings that a person has changed in a form: `$LLF_HOME/forms/<hash>.json`."""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llf_core.config import presets
from llf_core.redaction import redact_nested
from llf_core.redaction.file_modes import make_folder
from llf_core.runs import home
from llf_core.runs.files import json_bytes, replace_file
from llf_core.runs.jsonl import as_number
from llf_core.untrusted import json_value, list_folder, read_object_or_empty
from llf_widgets.start import notebook_location

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FORMS = "forms"
FORMAT = 1
MAX_BYTES = 100_000
"""Maximum file size; larger settings are not kept."""
MOST_FORMS = 200
"""Maximum number of files; the oldest ones are removed."""
LATEST = 1e11
"""Latest plausible time in Unix seconds (year 5138)."""
MISSING = object()
"""Value of a key that was removed."""
_FILE = re.compile(r"[0-9a-f]{32}\.json")


@dataclass(frozen=True)
class KeptChanges:
    """How the settings of a form differ from its initial ones.

    Attributes:
        given: initial values, as `stored` returns them.
        changes: new values by key; `MISSING` for a key that was removed.
        time: time of the last change, Unix seconds.
    """

    given_preset: str
    given: Mapping[str, object]
    preset_name: str
    from_preset: bool
    changes: Mapping[str, object]
    time: float


def file_of_cell() -> Path | None:
    """File of the form in the running cell, of the notebook if the front end names no cell; None outside a notebook."""
    where = notebook_location()
    if where is None:
        return None
    notebook, cell = where["path"], "" if where["cell"].startswith("In [") else where["cell"]
    if not notebook and not cell:
        return None
    key = hashlib.sha256(f"{notebook}\0{cell}".encode("utf-8", "surrogateescape")).hexdigest()[:32]
    with suppress(OSError):  # `LLF_HOME` cannot be located
        return home() / FORMS / f"{key}.json"
    return None


def stored(values: Mapping[str, object]) -> dict[str, object]:
    """The values as they are read back from a file, without secrets and values that JSON cannot represent."""
    kept = {}
    for key, value in values.items():
        with suppress(TypeError, ValueError, RecursionError):
            if json.dumps(value) == json.dumps(redact_nested({key: value})[key]):
                kept[key] = json_value(json_bytes({key: value}))[key]
    return kept


def read_changes(path: Path) -> KeptChanges | None:
    """Read the changes of a form; None if there is no file, or it is damaged, of another format, or not LLF's."""
    try:
        found = read_object_or_empty(path, MAX_BYTES, path.parent)
    except (OSError, ValueError):
        return None
    given, changes, removed = found.get("given"), found.get("changes"), found.get("removed")
    names, from_preset, last = [one.name for one in presets()], found.get("from_preset"), as_number(found.get("time"))
    if (
        found.get("format") != FORMAT
        or not isinstance(given, dict)
        or not isinstance(changes, dict)
        or not isinstance(removed, list)
        or not all(isinstance(key, str) for key in removed)
        or found.get("preset") not in names
        or found.get("given_preset") not in names
        or not isinstance(from_preset, bool)
        or last is None
        or not 0 < last < LATEST
    ):
        return None
    both = dict.fromkeys(removed, MISSING) | changes
    return KeptChanges(found["given_preset"], given, found["preset"], from_preset, both, last)


def write_changes(path: Path, kept: KeptChanges) -> bool:
    """Replace the file of a form, without what `stored` leaves out; without changes it is removed.

    Returns:
        Whether the file has the changes; it stays as it was if they need more than `MAX_BYTES`.
    """
    changes = stored({key: value for key, value in kept.changes.items() if value is not MISSING})
    removed = [key for key, value in kept.changes.items() if value is MISSING]
    data = json_bytes(
        {
            "format": FORMAT,
            "time": kept.time,
            "given_preset": kept.given_preset,
            "given": kept.given,
            "preset": kept.preset_name,
            "from_preset": kept.from_preset,
            "changes": changes,
            "removed": removed,
        }
    )
    if not changes and not removed:
        path.unlink(missing_ok=True)
        return True
    if len(data) > MAX_BYTES:
        return False
    if not path.exists():
        make_folder(path.parent)
        _make_room(path.parent)
    replace_file(path, data)
    return True


def _make_room(folder: Path) -> None:
    """Remove the oldest files of a folder, so that one more can be written; other programs' files stay."""
    ages = {}
    for name in list_folder(folder):
        if _FILE.fullmatch(name):
            with suppress(OSError):
                ages[folder / name] = (folder / name).lstat().st_mtime
    for path in sorted(ages, key=ages.__getitem__)[: max(0, len(ages) + 1 - MOST_FORMS)]:
        with suppress(OSError):
            path.unlink()
