"""All runs of a home, read from three small files each, and again only what has changed."""

from __future__ import annotations

import math
import os
import re
import shutil
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from llf_core.runs.files import special_file
from llf_core.runs.folder import RUN_ID, RunFolder, home
from llf_core.runs.jsonl import spelled
from llf_core.runs.measures import HELD_OUT, told
from llf_core.runs.meta import read_meta
from llf_core.runs.pace import pace, remaining
from llf_core.runs.reached import shown_status
from llf_core.runs.search import Search
from llf_core.runs.spark import Shape, shape
from llf_core.runs.status import BrokenRunError

CONFIG_HEAD = 32 * 1024  # bytes
SHOWN_KEYS = ("model_name_or_path", "dataset", "stage", "finetuning_type")
_KEY = re.compile(rf"^({'|'.join(SHOWN_KEYS)}):(.*)$", re.MULTILINE)
SORTS = ("newest", "oldest", "name", "state", "loss")
SETTLED = frozenset({"finished", "stopped", "failed"})
Signature = tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """One run in a list. Times are Unix seconds; `state` is as shown, or `broken` with the reason.

    Attributes:
        step_seconds: what the last step took.
        per_step: seconds a step takes now, evaluations and checkpoints included.
        spark: a few values of the number to look at first, from the first to the last.
        loss: the last logged loss of the training; NaN where it is not a finite number.
        eval_loss: the last one of held-out examples.
        counted: what counts beside the loss, as `{"name", "label", "form", "value"}`, the most telling first.
    """

    id: str
    name: str
    state: str
    step: int = 0
    total: int = 0
    created: float | None = None
    ended: float | None = None
    heartbeat: float | None = None
    step_seconds: float | None = None
    per_step: float | None = None
    attempt: int = 1
    reason: str | None = None
    device: str | None = None
    host: str | None = None
    model: str = ""
    dataset: str = ""
    stage: str = ""
    method: str = ""
    tags: tuple[str, ...] = ()
    note: str = ""
    spark: tuple[float, ...] = ()
    loss: float | None = None
    eval_loss: float | None = None
    counted: tuple[dict[str, Any], ...] = ()

    @property
    def remaining(self) -> float | None:
        """Seconds to the last planned step of a run that makes steps, by its last ones."""
        return remaining(self.state, self.step, self.total, self.per_step)

    def json(self) -> dict[str, Any]:
        """As a JSON object; a number that is not finite is spelled out."""
        lists = {name: list(getattr(self, name)) for name in ("tags", "spark", "counted")}
        found: dict[str, Any] = spelled(asdict(self) | lists | {"remaining": self.remaining})
        return found


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
        query: only runs that these words are found in, see `Search`.
        sort: `newest`, `oldest`, `name`, `state`, or `loss`: the lowest last loss first, then runs without one and
            those that failed.

    Raises:
        ValueError: `sort` is none of these.
    """
    return RunIndex(home).page(offset, limit, state, query, sort)


default_home = home


class RunIndex:
    """The runs of a home for somebody who asks again and again: only what has changed is read anew.

    Every method may be called from any thread.

    Args:
        home: `LLF_HOME` where it is not the environment's.
    """

    def __init__(self, home: Path | str | None = None) -> None:
        self._root = Path(home) if home is not None else default_home()
        self._names: tuple[Signature, list[str]] = ((), [])
        self._rows: dict[str, tuple[Signature, Row]] = {}
        self._lock = threading.Lock()

    def page(
        self,
        offset: int = 0,
        limit: int = 50,
        state: str | None = None,
        query: str | None = None,
        sort: str = "newest",
    ) -> Page:
        """Some of the runs; see `list_runs`.

        Raises:
            ValueError: `sort` is none that is known.
        """
        if sort not in SORTS:
            raise ValueError(f"sort is {sort!r}. Expected one of {', '.join(SORTS)}.")
        with self._lock:
            names = self.names()
            names = names if sort == "oldest" else names[::-1]
            if not state and not query and sort in {"newest", "oldest"}:
                return Page(len(names), tuple(map(self._row, names[offset : offset + limit])))
            search = Search(query or "")
            rows = [row for row in map(self._row, names) if (not state or row.state == state) and search.finds(row)]
        if sort in {"name", "state"}:
            rows.sort(key=lambda row: getattr(row, sort).lower())
        elif sort == "loss":
            rows.sort(key=_by_loss)
        return Page(len(rows), tuple(rows[offset : offset + limit]))

    def folder(self, name: str) -> RunFolder:
        """The folder of an id."""
        return RunFolder(self._root / "runs" / name)

    def names(self) -> list[str]:
        """The ids of all runs, oldest first; the folder is listed again only where something came or went."""
        path = self._root / "runs"
        signature = _signature(path)
        if signature != self._names[0]:
            try:
                with os.scandir(path) as entries:
                    names = sorted(one.name for one in entries if RUN_ID.fullmatch(one.name) and one.is_dir())
            except (FileNotFoundError, NotADirectoryError):
                names = []
            self._names = (signature, names)
            self._rows = {name: self._rows[name] for name in names if name in self._rows}
        return self._names[1]

    def _row(self, name: str) -> Row:
        folder = self.folder(name)
        files = (folder.status, folder.meta, folder.config, folder.metrics)
        signature = tuple(part for file in files for part in _signature(file))
        known = self._rows.get(name)
        # Whether a process still lives is in no file.
        if known is not None and known[0] == signature and known[1].state in SETTLED:
            return known[1]
        row = read_row(folder)
        self._rows[name] = (signature, row)
        return row


def _signature(path: Path) -> Signature:
    """What changes when a file or a folder does."""
    try:
        facts = path.stat()
    except OSError:
        return ()
    return (facts.st_ino, facts.st_mtime_ns, facts.st_size, facts.st_nlink)


def _by_loss(row: Row) -> tuple[bool, float]:
    loss = math.inf if row.loss is None or math.isnan(row.loss) else row.loss
    return (loss == math.inf or row.state in {"failed", "broken"}, loss)


def read_row(folder: RunFolder, *, curve: bool = True) -> Row:
    """One run as it is listed. Never raises for a broken folder: the row says what is wrong.

    Args:
        folder: the run.
        curve: read how it went too.
    """
    special = special_file(folder.path)
    if special:
        return Row(folder.id, folder.id, "broken", reason=f"{special} is not a regular file. Remove it or the run.")
    meta = read_meta(folder)
    name, tags = meta["name"] or folder.id, tuple(map(str, meta["tags"]))
    try:
        status = shown_status(folder)
    except BrokenRunError as error:
        return Row(folder.id, name, "broken", reason=str(error), tags=tags, note=meta["note"])
    config = _config_head(folder)
    went = shape(folder) if curve else Shape()
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
        per_step=pace(folder, status) if curve else status.step_seconds,
        attempt=status.attempt,
        reason=status.reason,
        device=status.device,
        host=status.host,
        model=config.get("model_name_or_path", ""),
        dataset=config.get("dataset", ""),
        stage=config.get("stage", ""),
        method=config.get("finetuning_type", ""),
        tags=tags,
        note=meta["note"],
        spark=went.points,
        loss=went.last.get("loss"),
        eval_loss=went.last.get(HELD_OUT + "loss"),
        counted=tuple(told(went.last)),
    )


def _config_head(folder: RunFolder) -> dict[str, str]:
    """The keys of `config.yaml` that a list shows, found without a YAML parser, which takes milliseconds."""
    try:
        with folder.config.open("rb") as file:
            head = file.read(CONFIG_HEAD).decode("utf-8", "replace")
    except OSError:
        return {}
    found = {}
    for key, text in _KEY.findall(head):
        try:
            value = yaml.safe_load(text) if any(mark in text for mark in "'\"[{#&*!|>") else text.strip()
        except (yaml.YAMLError, ValueError, RecursionError):  # a date that is none, brackets without end
            continue
        if isinstance(value, list):
            value = ",".join(map(str, value))
        if value not in (None, "null", "~"):
            found[key] = str(value)
    return found


def active_runs(home: Path | str | None = None) -> list[Row]:
    """The runs that are going now, newest first: a form names them before Start, for they use the device."""
    active = {"created", "starting", "running", "stopping"}
    index = RunIndex(home)
    rows = (read_row(index.folder(name), curve=False) for name in index.names()[::-1])
    return [row for row in rows if row.state in active]


def free_bytes(home: Path | str | None = None) -> int:
    """Bytes that a run may still write under `home`."""
    path = Path(home) if home is not None else default_home()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
