"""In-memory index of all runs in `LLF_HOME`, for repeated listing and searching.

Per run it keeps the row as displayed, an entry for search, filter and sort, and the signature of its files (inode,
size, times) at the time of reading. A page of the newest runs reads only the files of that page. Other queries need the
entries of all runs, which a thread updates: all of them at first, newest first, then only those whose files have
changed.

Queries of a list of runs, by words, state and order, and the entries of the index that they are matched with.
"""

from __future__ import annotations

import math
import os
import stat
import threading
import time
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.runs import listing
from llf_core.runs.charts import (
    EVAL_PREFIX,
    declared_directions,
    higher_is_better,
    lowercase_label,
    metric_named,
)
from llf_core.runs.config_file import read_config
from llf_core.runs.folder import RunFolder, home_folder, list_run_folders
from llf_core.runs.listing import Page, Row, SortMetric
from llf_core.runs.pace import last_evaluation, last_loss
from llf_core.runs.states import LIVE_STATES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


SETTLED_STATES = frozenset({"finished", "stopped", "failed", "lost", "broken"})
"""States that change only together with a file. For other states the processes must be checked as well."""
INDEXED_FILES = ("status.json", "meta.json", "config.yaml")
ROW_FILES = (*INDEXED_FILES, "metrics.jsonl")

CHEAP_SCAN_SECONDS = 0.02
"""If a scan of all runs takes at most this CPU time, every query scans first."""

MAX_CPU_SHARE = 0.04
"""Maximum share of one core for repeated scans."""

SCAN_SECONDS, PAUSE = 0.004, 0.006
"""Seconds of work and of pause of the scanning thread, so that the server stays responsive."""
KEPT_RESULTS = 256

TIMESTAMP_SECONDS = 1.0
"""Timestamp resolution of some file systems: a folder may change twice within it unnoticed."""
Signature = tuple[int, ...]
NOT_THERE: Signature = (0,)


class QueryCancelledError(Exception):
    """The client has gone; the query was cancelled."""


class RunIndex:
    """Index of the runs in `LLF_HOME`: only changed runs are read again.

    All methods are thread-safe; no lock is held while a file is read.
    """

    def __init__(self, home: Path | str | None = None) -> None:
        self._root = home_folder(home)
        self._runs = os.fspath(self._root / "runs")
        self._names: tuple[Signature, tuple[str, ...]] = ((), ())
        self._rows: dict[str, tuple[Signature, Row]] = {}
        self._entries: dict[str, tuple[Signature, Entry]] = {}
        self._not_runs: tuple[Row, ...] = ()
        self._generation = 0
        self._newest: tuple[int, IndexedRuns] = (-1, [])
        self._sort_metrics: tuple[int, tuple[SortMetric, ...]] = (-1, ())
        self._results: OrderedDict[tuple[object, ...], tuple[str, ...]] = OrderedDict()
        self._lock = threading.Lock()
        self._scan: Future[None] | None = None
        self._last: Future[None] | None = None  # of the last scan that ended
        self._scanned_at = -math.inf
        self._cost = 0.0

    def page(  # noqa: PLR0913 - each narrows the list by one thing
        self,
        offset: int = 0,
        limit: int = 50,
        state: str | None = None,
        query: str | None = None,
        sort: str = "newest",
        *,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> Page:
        """List runs, after a scan of all runs if the query needs their content; see `list_runs`.

        Args:
            is_cancelled: called now and then; True cancels the query.
        """
        run_query = RunQuery(state, query, sort)
        if not run_query.is_unfiltered:
            self.refresh(at_once=True).result()
        return self.cached_page(offset, limit, run_query, is_cancelled=is_cancelled)

    def cached_page(
        self, offset: int, limit: int, query: RunQuery, *, is_cancelled: Callable[[], bool] = lambda: False
    ) -> Page:
        """List runs from the current index without a scan; `Page.reading` says how complete the index is."""
        names = self.names()
        found = names if query.is_unfiltered else self._find(names, query, is_cancelled)
        if query.sort == "newest" and query.is_unfiltered:
            end = len(found) - offset
            wanted: Iterable[str] = found[max(0, end - limit) : max(0, end)][::-1]
        else:
            wanted = found[offset : offset + limit]
        rows = []
        for name in wanted:
            if is_cancelled():
                raise QueryCancelledError
            rows.append(self._row(name))
        odd = [row for row in self._not_runs if query.matches(row)]  # last in every order
        rows += odd[max(0, offset - len(found)) : max(0, offset + limit - len(found))]
        known = len(self._entries)
        reading = None if query.is_unfiltered or known >= len(names) else (known, len(names))
        return Page(len(found) + len(odd), tuple(rows), reading, self._metrics())

    def finished(self) -> list[str]:
        """Ids of indexed finished runs with a result, newest first."""
        entries = self._entries
        found = ((name, entries.get(name)) for name in reversed(self.names()))
        return [name for name, one in found if one is not None and one[1].state == "finished" and one[1].output]

    def row(self, name: str) -> Row:
        """The row of a run, read again if its files have changed; `broken` if the run is gone."""
        return self._row(name)

    def folder(self, name: str) -> RunFolder:
        """The folder of a run. Its existence is not checked."""
        return RunFolder(self._root / "runs" / name)

    def names(self) -> tuple[str, ...]:
        """Ids of all runs, oldest first. The folder is listed again only if an entry was added or removed."""
        signature = _signature(self._runs)
        known = self._names
        if signature == known[0]:
            return known[1]
        try:
            names, odd = list_run_folders(Path(self._runs))
        except (FileNotFoundError, NotADirectoryError):
            names, odd = (), {}
        self._not_runs = tuple(Row(name, name, "broken", reason=reason) for name, reason in odd.items())
        if signature != NOT_THERE and time.time() - signature[1] / 1e9 < TIMESTAMP_SECONDS:
            signature = ()  # the next change may have the same timestamp
        with self._lock:
            if names != known[1]:
                self._generation += 1
                there = set(names)
                for kept in (self._rows, self._entries):
                    for name in [name for name in kept if name not in there]:
                        del kept[name]
            self._names = (signature, names)
        return names

    @property
    def scan_started(self) -> bool:
        """Whether a scan is in progress, or the last one succeeded or is still valid."""
        if self._scan is not None:
            return True
        return self._last is not None and (self._is_valid() or self._last.exception() is None)

    def refresh(self, *, at_once: bool = False) -> Future[None]:
        """Start a scan of all runs if the last one is outdated.

        A scan takes one `stat` of each folder and of three files in it, and reads the runs that have changed or not
        ended. One that took more than `CHEAP_SCAN_SECONDS` stays valid the longer, the longer it took, even if it
        failed, so that all scans together take at most `MAX_CPU_SHARE` of a core.

        Args:
            at_once: scan without pauses in this thread, unless another thread is scanning.

        Returns:
            The scan in progress, or the last one if it is still valid. Its `result()` raises what the scan raised.
        """
        with self._lock:
            if self._scan is not None:
                return self._scan
            if self._last is not None and self._is_valid():
                return self._last
            future = self._scan = Future()
        if at_once:
            self._scan_all(future, rests=False)
        else:
            threading.Thread(target=self._scan_all, args=(future,), name="llf-runs", daemon=True).start()
        return future

    def _is_valid(self) -> bool:
        rest = 0.0 if self._cost <= CHEAP_SCAN_SECONDS else self._cost / MAX_CPU_SHARE
        return time.monotonic() - self._scanned_at < rest

    def _scan_all(self, future: Future[None], *, rests: bool = True) -> None:
        began, cost = time.monotonic(), time.thread_time()
        failure: BaseException | None = None
        try:
            slice_began = began
            for name in reversed(self.names()):
                self._update_entry(name)
                if rests and time.monotonic() - slice_began > SCAN_SECONDS:
                    time.sleep(PAUSE)
                    slice_began = time.monotonic()
        except BaseException as error:  # noqa: BLE001 - whoever waits hears of it
            failure = error
        with self._lock:
            if failure is None or isinstance(failure, Exception):  # one that a user interrupts is made again at once
                self._last, self._scanned_at, self._cost = future, began, time.thread_time() - cost
            self._scan = None
        if failure is None:
            future.set_result(None)
        else:
            future.set_exception(failure)

    def _update_entry(self, name: str) -> None:
        signature = self._signature(name, INDEXED_FILES)
        known = self._entries.get(name)
        if signature[:1] == NOT_THERE:  # removed since it was listed
            return
        if known is not None and known[0] == signature and known[1].state in SETTLED_STATES:
            return
        folder = self.folder(name)
        row = listing.read_row(folder, curve=False)
        self._keep(name, signature, replace(row, loss=last_loss(folder), evaluated=last_evaluation(folder)))

    def _keep(self, name: str, signature: Signature, row: Row) -> None:
        output = _is_folder(f"{self._runs}/{name}/output")
        with self._lock:
            known = self._entries.get(name)
        before = {} if known is None else known[1].directions
        directions = before if before.keys() >= row.evaluated.keys() else self._directions(name, row.evaluated)
        entry = Entry(
            searched_text(row), row.state, row.name.lower(), loss_order(row), output, dict(row.evaluated), directions
        )
        with self._lock:
            known = self._entries.get(name)
            self._entries[name] = (signature, entry)
            if known is None or known[1] != entry:
                self._generation += 1

    def _directions(self, name: str, metrics: Iterable[str]) -> dict[str, bool]:
        """Whether a higher value of each metric is better; undeclared ones are missing."""
        found = {one: higher_is_better(one) for one in metrics}
        if None in found.values():  # functions and data sets are declared by the run alone, whose YAML takes longer
            own = declared_directions(read_config(self.folder(name).resolved))
            found = {one: higher_is_better(one, own) for one in metrics}
        return {one: better for one, better in found.items() if better is not None}

    def _metrics(self) -> tuple[SortMetric, ...]:
        """The metrics that the indexed runs can be sorted by; cached until an entry changes."""
        with self._lock:
            generation, entries = self._generation, list(self._entries.items())
        if self._sort_metrics[0] != generation:
            found: dict[str, bool] = {}
            for _, (_, entry) in sorted(entries):  # the newest run decides
                found |= entry.directions
            metrics = []
            for name, higher in found.items():
                shown = metric_named(name.removeprefix(EVAL_PREFIX))
                metrics.append(
                    SortMetric(name, lowercase_label(shown.label), shown.form, "higher" if higher else "lower")
                )
            self._sort_metrics = (generation, tuple(sorted(metrics, key=lambda one: (one.label.lower(), one.name))))
        return self._sort_metrics[1]

    def _sorted(self, found: IndexedRuns, sort: str) -> IndexedRuns:
        """Sort runs, which are newest first."""
        if not sort.startswith(BY_METRIC):
            return ORDERS[sort](found)
        metric = sort.removeprefix(BY_METRIC)
        higher = next((one.better == "higher" for one in self._metrics() if one.name == metric), False)

        def order(entry: Entry) -> tuple[bool, float]:
            value = entry.evaluated.get(metric, math.nan)
            return (True, 0.0) if math.isnan(value) else (False, -value if higher else value)

        return sorted(found, key=lambda one: order(one[1]))

    def _find(self, names: tuple[str, ...], query: RunQuery, is_cancelled: Callable[[], bool]) -> tuple[str, ...]:
        search, state = query.search, query.state
        key = (search.words, search.first, state, query.sort)
        with self._lock:
            generation = self._generation
            found = self._results.get((*key, generation))
            if found is not None:
                self._results.move_to_end((*key, generation))
                return found
            if self._newest[0] != generation:
                known = ((name, self._entries.get(name)) for name in reversed(names))
                self._newest = (generation, [(name, one[1]) for name, one in known if one is not None])
            chosen = self._newest[1]
        if state is not None:
            chosen = [one for one in chosen if one[1].state == state]
        for word in search.words:
            chosen = [one for one in chosen if search.finds(word, one[1].text, one[0])]
            if is_cancelled():
                raise QueryCancelledError
        found = tuple(name for name, _ in self._sorted(chosen, query.sort))
        with self._lock:
            self._results[*key, generation] = found
            while len(self._results) > KEPT_RESULTS:
                self._results.popitem(last=False)
        return found

    def _row(self, name: str) -> Row:
        signature = self._signature(name, ROW_FILES)
        known = self._rows.get(name)
        if known is not None and known[0] == signature and known[1].state in SETTLED_STATES:
            return known[1]
        found_by = self._signature(name, INDEXED_FILES)
        row = listing.read_row(self.folder(name))
        if found_by[:1] == NOT_THERE:  # removed since it was listed: `names` forgets it
            return row
        with self._lock:
            self._rows[name] = (signature, row)
        self._keep(name, found_by, row)
        return row

    def _signature(self, name: str, files: tuple[str, ...]) -> Signature:
        path = f"{self._runs}/{name}"
        parts = _signature(path)
        for file in files:
            parts += _signature(f"{path}/{file}")
        return parts


def list_runs(  # noqa: PLR0913, PLR0917 - each narrows the list by one thing
    home: Path | str | None = None,
    offset: int = 0,
    limit: int = 50,
    state: str | None = None,
    query: str | None = None,
    sort: str = "newest",
) -> Page:
    """List runs once, for commands. Views that list repeatedly keep a `RunIndex`.

    Args:
        state: only runs in this state, `lost` and `broken` included.
        query: only runs that contain these words, see `Search`.
        sort: `newest`, `oldest`, `name`, `state`, or `loss`: lowest last loss first, then runs without a loss and
            failed runs; or `metric:NAME`: by the last value of a metric of evaluations, such as `eval_rougeL`, the
            better ones first, as the metric declares it (the lower ones if nothing does), then runs without it.

    Returns:
        The page. Entries of the folder that are not runs come last, as `broken`.
    """
    return RunIndex(home).page(offset, limit, state, query, sort)


def active_runs(home: Path | str | None = None) -> list[Row]:
    """Runs that are live now, queued ones included, newest first."""
    index = RunIndex(home)
    rows = (listing.read_row(index.folder(name), curve=False) for name in reversed(index.names()))
    return [row for row in rows if row.state in LIVE_STATES]


def _is_folder(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)  # called for many runs
    except OSError:
        return False


def _signature(path: str) -> Signature:
    """Signature of a file or folder: changes with its content."""
    try:
        facts = os.stat(path)  # noqa: PTH116 - for each of many runs
    except OSError:
        return NOT_THERE
    return (facts.st_ino, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_size)


MAX_WORDS, MAX_CHARACTERS = 20, 200
"""Limits on a query, since each word is searched in each run."""


@dataclass(frozen=True)
class Entry:
    """Search, filter and sort keys of a run: `text` is its `searched_text`, `order` its `loss_order`."""

    text: str
    state: str
    name: str
    order: tuple[bool, float]
    output: bool
    evaluated: Mapping[str, float]
    directions: Mapping[str, bool]


IndexedRuns = list[tuple[str, Entry]]

ORDERS: dict[str, Callable[[IndexedRuns], IndexedRuns]] = {
    "newest": lambda found: found,
    "oldest": lambda found: found[::-1],
    "name": lambda found: sorted(found, key=lambda one: one[1].name),
    "state": lambda found: sorted(found, key=lambda one: one[1].state),
    "loss": lambda found: sorted(found, key=lambda one: one[1].order),
}
"""Sort orders, applied to a list that is newest first."""

BY_METRIC = "metric:"
"""Prefix of a sort order by a metric of evaluations: `metric:eval_rougeL`."""


class RunQuery:
    """Filter and sort order of a list of runs, see `list_runs`.

    Raises:
        ValueError: `sort` is unknown, or the query is too long.
    """

    def __init__(self, state: str | None = None, query: str | None = None, sort: str = "newest") -> None:
        if sort not in ORDERS and not sort.startswith(f"{BY_METRIC}{EVAL_PREFIX}"):
            raise ValueError(
                f"sort is {sort[:40]!r}. Expected one of {', '.join(ORDERS)}, or {BY_METRIC}{EVAL_PREFIX}NAME."
            )
        self.state, self.sort = state or None, sort
        self.search = Search(query or "")

    def matches(self, row: Row) -> bool:
        """Whether a row passes the filter, for rows that are not in the index."""
        return self.state in {None, row.state} and self.search.matches(row)

    @property
    def is_unfiltered(self) -> bool:
        """Whether the ids alone answer the query (no search, no filter, order by id)."""
        return not self.state and not self.search.words and self.sort in {"newest", "oldest"}


def loss_order(row: Row) -> tuple[bool, float]:
    """Sort key by loss: the lowest first, then runs without a loss and failed ones."""
    loss = math.inf if row.loss is None or math.isnan(row.loss) else row.loss
    return (loss == math.inf or row.state in {"failed", "broken"}, loss)


class Search:
    """A search query of words separated by spaces, case-insensitive.

    Every word must be a part of the name, a tag, the note, the data, the model, the stage, the method, or the id behind
    its time. The first word may also be the beginning of an id, and no later one: `lora 20` finds names with 20, not
    the year of every id.

    Raises:
        ValueError: the text has more than `MAX_CHARACTERS` characters or `MAX_WORDS` words.
    """

    def __init__(self, text: str) -> None:
        if len(text) > MAX_CHARACTERS:
            raise ValueError(
                f"The search has {len(text):,} characters. Expected at most {MAX_CHARACTERS}: use fewer words."
            )
        words = text.lower().split()
        if len(words) > MAX_WORDS:
            raise ValueError(f"The search has {len(words)} words. Expected at most {MAX_WORDS}.")
        self.words = tuple(sorted(set(words), key=lambda word: (-len(word), word)))
        """The words, each once, the longest and thus rarest first."""
        self.first = words[0] if words and words[0] not in words[1:] else ""

    def matches(self, row: Row) -> bool:
        """Whether every word matches a run, as listed."""
        text = searched_text(row)
        return all(self.finds(word, text, row.id) for word in self.words)

    def finds(self, word: str, text: str, run_id: str) -> bool:
        """Whether one of the words matches a run, by `searched_text` of its row."""
        return word in text or (word == self.first and run_id.startswith(word))


def searched_text(row: Row) -> str:
    """The searchable text of a run in lower case, one field per line, so that no word spans two fields."""
    paths = (_shown(path) for path in (row.model, *row.dataset.split(",")))
    behind_time = row.id.split("-", 2)[-1]
    return "\n".join((row.name, *row.tags, row.note, *paths, row.stage, row.method, behind_time)).lower()


def _shown(path: str) -> str:
    """A file or folder name without its path; a hub id unchanged."""
    return path.rstrip("/").rpartition("/")[2] if path.startswith(("/", "~", ".")) else path
