"""Settings that a person has changed in a form, offered again when its cell is run the next time.

A form begins with what its cell says, never with the changed settings: in a notebook that is run from top to bottom,
`studio.config` and `studio.start()` must give what the cells say, on every machine. For the same reason values that
were changed in the cell meanwhile win over offered ones. One click restores the settings, another one undoes that.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llf_core.config import presets
from llf_core.redaction import redact_nested
from llf_core.redaction.file_modes import make_folder
from llf_core.runs import home
from llf_core.runs.files import json_bytes, replace_file
from llf_core.runs.jsonl import as_number
from llf_core.untrusted import brief, json_value, list_folder, read_object_or_empty
from llf_widgets.forms.state import KEPT_KEYS
from llf_widgets.forms.values import same_value
from llf_widgets.start import notebook_location

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llf_widgets.forms.state import FormSnapshot, FormState

NAMED = 3
"""Maximum number of fields that an offer names."""


@dataclass(frozen=True)
class FormSettings:
    """What a person can choose in a form."""

    preset_name: str
    from_preset: bool
    values: Mapping[str, object]

    @classmethod
    def of(cls, state: FormState) -> FormSettings:
        """The settings that a form has now."""
        return cls(state.preset_name, state.from_preset, dict(state.config_values))

    def put_into(self, state: FormState) -> None:
        """Set all fields of a form."""
        # Model and data first: the model brings its template, which goes with the next model, and a preset keeps both.
        state.apply({key: self.values.get(key) for key in KEPT_KEYS})
        if self.preset_name != state.preset_name:
            state.select_preset(self.preset_name)
        state.from_preset = self.from_preset
        state.replace_values(self.values)


@dataclass(frozen=True)
class _ClosedOffer:
    """An offer whose `answer` was `restored` or `discarded`, with the form before it."""

    answer: str
    count: int
    offer: KeptChanges
    form: FormSnapshot


class KeptSettings:
    """Keeps the settings of a form in `LLF_HOME`, one file for each cell of a notebook, and offers the earlier ones.

    While an offer is open, it is kept together with what the person changes; the newer change of a field wins. Nothing
    is kept outside notebooks, of values that hold a secret, and where the file cannot be written.

    Attributes:
        are_kept: whether the next form will offer what was changed in this one.
    """

    def __init__(self, state: FormState) -> None:
        self._state = state
        self._begin = self._seen = FormSettings.of(state)
        self._given = stored(self._begin.values)
        self._file = _file_of_cell()
        self._offer = None if self._file is None else read_changes(self._file)
        self.are_kept = self._file is not None
        self._keeps_offer = True
        self._closed: _ClosedOffer | None = None

    def refresh(self) -> dict[str, object]:
        """Keep the settings if they have changed since the last call.

        Returns:
            `state` (`offered`, `restored` or `discarded`), `count` (number of settings), `time` (of the last change,
            Unix seconds), `labels` (some of their fields). Empty if nothing is kept.
        """
        if FormSettings.of(self._state) != self._seen:
            self._closed = None
            self._keep()
        if self._closed is not None:
            return {"state": self._closed.answer, "count": self._closed.count}
        labels = self._offered_fields()
        if self._offer is None or not labels:
            return {}
        return {"state": "offered", "count": len(labels), "time": self._offer.time, "labels": labels[:NAMED]}

    def restore(self) -> None:
        """Restore the offered settings, except those of fields that were edited since the form began."""
        if self._offer is not None:
            settings = self._with_offer()
            self._close_offer("restored", self._offer)
            settings.put_into(self._state)
            self._keep()

    def discard(self) -> None:
        """Forget the offered settings."""
        if self._offer is not None:
            self._close_offer("discarded", self._offer)
            self._keep()

    def undo(self) -> None:
        """Undo `restore` or `discard`, until the next edit."""
        if self._closed is not None:
            self._state.return_to(self._closed.form)
            self._offer, self._closed = self._closed.offer, None
            self._keep()

    def run_started(self) -> None:
        """Drop the offered settings, since a run was started with the edited ones; without edits they stay."""
        if self._offer is not None and self._edited():
            self._keeps_offer = False
            self._keep()

    def _close_offer(self, answer: str, offer: KeptChanges) -> None:
        self._closed = _ClosedOffer(answer, len(self._offered_fields()), offer, self._state.snapshot())
        self._offer = None

    def _edited(self) -> dict[str, object]:
        return _difference(self._begin.values, self._state.config_values)

    def _offered_fields(self) -> list[str]:
        """Labels of the fields that `restore` would change, in the order of the form."""
        changes, specs = _difference(self._state.config_values, self._with_offer().values), self._state.specs
        known = [spec.label for key, spec in specs.items() if key in changes]
        return [*known, *(brief(key) for key in changes if key not in specs)]

    def _with_offer(self) -> FormSettings:
        """The form's settings with the offered ones, except where the cell or the person has changed a value since."""
        now, offer = FormSettings.of(self._state), self._offer
        if offer is None:
            return now
        edited, values = self._edited(), dict(now.values)
        for key, value in offer.changes.items():
            if key in edited or not same_value(offer.given.get(key, MISSING), self._given.get(key, MISSING)):
                continue
            if value is MISSING:
                values.pop(key, None)
            else:
                values[key] = value
        if offer.given_preset != self._begin.preset_name or now.preset_name != self._begin.preset_name:
            return replace(now, values=values)
        return FormSettings(offer.preset_name, offer.from_preset, values)

    def _keep(self) -> None:
        """Write what differs from the cell, for the next form."""
        self._seen = FormSettings.of(self._state)
        if self._file is None:
            return
        offer = self._offer if self._keeps_offer else None
        target = self._seen if offer is None else self._with_offer()
        last = time.time() if offer is None or self._edited() else offer.time
        changes = _difference(self._begin.values, target.values)
        kept = KeptChanges(self._begin.preset_name, self._given, target.preset_name, target.from_preset, changes, last)
        self.are_kept = False
        with suppress(OSError):
            self.are_kept = write_changes(self._file, kept)


def _difference(before: Mapping[str, object], after: Mapping[str, object]) -> dict[str, object]:
    """Values in `after` of the keys that differ; `MISSING` for those that are not in it."""
    found = {key: after.get(key, MISSING) for key in dict.fromkeys((*before, *after))}
    return {key: value for key, value in found.items() if not same_value(before.get(key, MISSING), value)}


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


def _file_of_cell() -> Path | None:
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
