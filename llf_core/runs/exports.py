"""Exports of a run: one line for each in `exports.jsonl`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.runs.jsonl import append, is_count, records
from llf_core.untrusted import leads_to_folder

if TYPE_CHECKING:
    from llf_core.runs.folder import RunFolder

FILE = "exports.jsonl"
MAX_BYTES = 2**22


@dataclass(frozen=True)
class RecordedExport:
    """An export of a run.

    Attributes:
        folder: where it was written; it may have been moved since.
        made: time, as ISO 8601.
        bytes: 0 if unknown.
        step: step of the exported weights; None for the result of a run whose steps are unknown.
    """

    folder: str
    format: str
    made: str
    passed: bool
    bytes: int = 0
    step: int | None = None

    @property
    def there(self) -> bool:
        """Whether the folder still exists."""
        return leads_to_folder(Path(self.folder))


def record_export(run: RunFolder, export: RecordedExport) -> None:
    """Add an export to the list of its run."""
    append(run.path / FILE, asdict(export))


def exports_of(run: RunFolder) -> list[RecordedExport]:
    """The valid exports of a run, newest first; of a long file only the last `MAX_BYTES` are read."""
    found = [_read(line) for line in records(run.path / FILE, MAX_BYTES)]
    return [one for one in reversed(found) if one is not None]


def _read(line: dict[str, object]) -> RecordedExport | None:
    folder, form, made, passed = (line.get(name) for name in ("folder", "format", "made", "passed"))
    size: Any = line.get("bytes", 0)
    step: Any = line.get("step")
    if not (isinstance(folder, str) and isinstance(form, str) and isinstance(made, str) and isinstance(passed, bool)):
        return None
    if not is_count(size) or not (step is None or is_count(step)):
        return None
    return RecordedExport(folder, form, made, passed, size, step)
