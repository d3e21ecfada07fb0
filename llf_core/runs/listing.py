"""All runs of a home, read from three small files each."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from llf_core.runs.folder import RUN_ID, RunFolder, home
from llf_core.runs.meta import read_meta
from llf_core.runs.reached import shown_status
from llf_core.runs.status import BrokenRunError

CONFIG_HEAD = 32 * 1024  # bytes
SHOWN_KEYS = ("model_name_or_path", "dataset", "stage", "finetuning_type")
_KEY = re.compile(rf"^({'|'.join(SHOWN_KEYS)}):(.*)$", re.MULTILINE)
SORTS = ("newest", "oldest", "name", "state")


@dataclass(frozen=True)
class Row:
    """One run in a list. Times are Unix seconds; `state` is as shown, or `broken` with the reason."""

    id: str
    name: str
    state: str
    step: int = 0
    total: int = 0
    created: float | None = None
    ended: float | None = None
    heartbeat: float | None = None
    step_seconds: float | None = None
    attempt: int = 1
    reason: str | None = None
    device: str | None = None
    model: str = ""
    dataset: str = ""
    stage: str = ""
    method: str = ""
    tags: tuple[str, ...] = ()

    def json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self) | {"tags": list(self.tags)}


@dataclass(frozen=True)
class Page:
    """Some of the runs that match, and how many match in all."""

    total: int
    rows: tuple[Row, ...]

    def json(self) -> dict[str, Any]:
        """As the server and `llf runs list --json` answer it."""
        return {"total": self.total, "runs": [row.json() for row in self.rows]}


def list_runs(  # noqa: PLR0913, PLR0917 - each narrows the list by one thing
    home: Path | str | None = None,
    offset: int = 0,
    limit: int = 50,
    state: str | None = None,
    query: str | None = None,
    sort: str = "newest",
) -> Page:
    """Lists runs.

    Args:
        home: `LLF_HOME` where it is not the environment's.
        offset: leaves out so many.
        limit: at most so many.
        state: only runs shown in this state.
        query: only runs whose id, name, tags, model or data contain each of these words.
        sort: `newest`, `oldest`, `name` or `state`.

    Raises:
        ValueError: `sort` is none of these.
    """
    if sort not in SORTS:
        raise ValueError(f"sort is {sort!r}. Expected one of {', '.join(SORTS)}.")
    folders = _folders(Path(home) if home is not None else default_home(), newest=sort != "oldest")
    if not state and not query and sort in {"newest", "oldest"}:
        return Page(len(folders), tuple(map(read_row, folders[offset : offset + limit])))
    words = (query or "").lower().split()
    rows = [row for row in map(read_row, folders) if _matches(row, state, words)]
    if sort in {"name", "state"}:
        rows.sort(key=lambda row: getattr(row, sort).lower())
    return Page(len(rows), tuple(rows[offset : offset + limit]))


default_home = home


def _folders(root: Path, *, newest: bool) -> list[RunFolder]:
    try:
        with os.scandir(root / "runs") as entries:
            names = [entry.name for entry in entries if RUN_ID.fullmatch(entry.name) and entry.is_dir()]
    except FileNotFoundError:
        return []
    return [RunFolder(root / "runs" / name) for name in sorted(names, reverse=newest)]


def _matches(row: Row, state: str | None, words: list[str]) -> bool:
    if state and row.state != state:
        return False
    text = " ".join((row.id, row.name, row.model, row.dataset, row.stage, row.method, *row.tags)).lower()
    return all(word in text for word in words)


def read_row(folder: RunFolder) -> Row:
    """One run as it is listed. Never raises for a broken folder: the row says what is wrong."""
    meta = read_meta(folder)
    name, tags = meta["name"] or folder.id, tuple(map(str, meta["tags"]))
    try:
        status = shown_status(folder)
        config = _config_head(folder)
    except BrokenRunError as error:
        return Row(folder.id, name, "broken", reason=str(error), tags=tags)
    return Row(
        id=folder.id,
        name=name,
        state=status.state,
        step=status.step,
        total=status.total,
        created=status.created,
        ended=status.ended,
        heartbeat=status.heartbeat,
        step_seconds=status.step_seconds,
        attempt=status.attempt,
        reason=status.reason,
        device=status.device,
        model=config.get("model_name_or_path", ""),
        dataset=config.get("dataset", ""),
        stage=config.get("stage", ""),
        method=config.get("finetuning_type", ""),
        tags=tags,
    )


def _config_head(folder: RunFolder) -> dict[str, str]:
    """The keys of `config.yaml` that a list shows, found without a YAML parser, which takes milliseconds."""
    try:
        with folder.config.open("rb") as file:
            head = file.read(CONFIG_HEAD).decode("utf-8", "replace")
    except FileNotFoundError:
        return {}
    found = {}
    for key, text in _KEY.findall(head):
        try:
            value = yaml.safe_load(text) if any(mark in text for mark in "'\"[{#&*!|>") else text.strip()
        except yaml.YAMLError:
            continue
        if isinstance(value, list):
            value = ",".join(map(str, value))
        if value not in (None, "null", "~"):
            found[key] = str(value)
    return found


def active_runs(home: Path | str | None = None) -> list[Row]:
    """The runs that are going now, newest first: a form names them before Start, for they use the device."""
    folders = _folders(Path(home) if home is not None else default_home(), newest=True)
    active = {"created", "starting", "running", "stopping"}
    return [row for row in map(read_row, folders) if row.state in active]


def free_bytes(home: Path | str | None = None) -> int:
    """Bytes that a run may still write under `home`."""
    path = Path(home) if home is not None else default_home()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
