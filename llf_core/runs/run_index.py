"""What is known of all runs of a home, for who lists and searches them again and again.

Three things are kept of a run: its row, as it is shown; an entry, by which it is found, filtered and put in order; and
what its files looked like (inode, size, times) when they were read. A page of the newest runs needs the files of that
page alone. Everything else needs the entries of all runs, which a thread brings up to date: at first all of them, the
newest first, then only those whose files have changed.
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
from llf_core.runs.folder import RunFolder, home, look
from llf_core.runs.latest_metrics import last_loss
from llf_core.runs.listing import Page, Row
from llf_core.runs.search import Search, searched_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SETTLED = frozenset({"finished", "stopped", "failed", "lost", "broken"})
"""States that change only together with a file: of the others, whether a process still lives is in no file."""
FOUND_BY = ("status.json", "meta.json", "config.yaml")
SHOWN_BY = (*FOUND_BY, "metrics.jsonl")
CHEAP = 0.02
"""Seconds of processor time: where looking at all runs takes no more, every question is preceded by a look."""
SHARE = 0.04
"""Of one core: what looking again and again may take."""
AT_ONCE, PAUSE = 0.004, 0.006
"""Seconds that a thread reads before it rests, and rests: a server has other things to do."""
KEPT_RESULTS = 256
FRESH = 1.0
"""Seconds in which a folder may change twice with one time stamp, on some file systems."""
Signature = tuple[int, ...]
NOT_THERE: Signature = (0,)


class GoneError(Exception):
    """Nobody waits for the answer any more."""


@dataclass(frozen=True)
class Entry:
    """By what a run is found, filtered and put in order.

    Attributes:
        text: `searched_text` of its row.
        state: as shown.
        name: in lower case.
        order: where it stands among the losses.
        output: whether it has a result.
    """

    text: str
    state: str
    name: str
    order: tuple[bool, float]
    output: bool


Found = list[tuple[str, Entry]]
ORDERS: dict[str, Callable[[Found], Found]] = {
    "newest": lambda found: found,
    "oldest": lambda found: found[::-1],
    "name": lambda found: sorted(found, key=lambda one: one[1].name),
    "state": lambda found: sorted(found, key=lambda one: one[1].state),
    "loss": lambda found: sorted(found, key=lambda one: one[1].order),
}
"""What stands newest first, put in another order."""


class RunIndex:
    """The runs of a home for somebody who asks again and again: only what has changed is read anew.

    Every method may be called from any thread; no lock is held while a file is read.

    Args:
        home: `LLF_HOME` where it is not the environment's.
    """

    def __init__(self, home: Path | str | None = None) -> None:
        self._root = Path(home) if home is not None else default_home()
        self._runs = os.fspath(self._root / "runs")
        self._names: tuple[Signature, tuple[str, ...]] = ((), ())
        self._rows: dict[str, tuple[Signature, Row]] = {}
        self._entries: dict[str, tuple[Signature, Entry]] = {}
        self._odd: tuple[Row, ...] = ()
        self._generation = 0
        self._newest: tuple[int, Found] = (-1, [])
        self._results: OrderedDict[tuple[object, ...], tuple[str, ...]] = OrderedDict()
        self._lock = threading.Lock()
        self._look: Future[None] | None = None
        self._looked = -math.inf
        self._cost = 0.0

    def page(  # noqa: PLR0913 - each narrows the list by one thing
        self,
        offset: int = 0,
        limit: int = 50,
        state: str | None = None,
        query: str | None = None,
        sort: str = "newest",
        *,
        gone: Callable[[], bool] = lambda: False,
    ) -> Page:
        """Some of the runs, after a look at all of them where it takes one; see `list_runs`.

        Args:
            offset: leaves out so many.
            limit: at most so many.
            state: only runs shown in this state.
            query: only runs that these words are found in.
            sort: see `list_runs`.
            gone: asked now and then; where it is true, nobody waits for the answer any more.

        Raises:
            ValueError: `sort` is none that is known, or the query is too long.
            GoneError: nobody waits for the answer any more.
        """
        asked = Asked(state, query, sort)
        if not asked.plain:
            self.refresh(at_once=True).result()
        return self.page_as_known(offset, limit, asked, gone=gone)

    def page_as_known(self, offset: int, limit: int, asked: Asked, *, gone: Callable[[], bool] = lambda: False) -> Page:
        """Some of the runs, by what is known of them now: `Page.reading` tells how much is not known yet.

        Args:
            offset: leaves out so many.
            limit: at most so many.
            asked: which runs, in which order.
            gone: see `page`.

        Raises:
            GoneError: nobody waits for the answer any more.
        """
        names = self.names()
        found = names if asked.plain else self._find(names, asked, gone)
        if asked.sort == "newest" and asked.plain:
            end = len(found) - offset
            wanted: Iterable[str] = found[max(0, end - limit) : max(0, end)][::-1]
        else:
            wanted = found[offset : offset + limit]
        rows = []
        for name in wanted:
            if gone():
                raise GoneError
            rows.append(self._row(name))
        odd = [row for row in self._odd if asked.takes(row)]  # after all runs, in every order
        rows += odd[max(0, offset - len(found)) : max(0, offset + limit - len(found))]
        known = len(self._entries)
        reading = None if asked.plain or known >= len(names) else (known, len(names))
        return Page(len(found) + len(odd), tuple(rows), reading)

    def finished(self) -> list[str]:
        """Ids of finished runs that have a result, by what is known of them now, the newest first."""
        entries = self._entries
        found = ((name, entries.get(name)) for name in reversed(self.names()))
        return [name for name, one in found if one is not None and one[1].state == "finished" and one[1].output]

    def row(self, name: str) -> Row:
        """The row of an id, read again where its files have changed."""
        return self._row(name)

    def folder(self, name: str) -> RunFolder:
        """The folder of an id."""
        return RunFolder(self._root / "runs" / name)

    def names(self) -> tuple[str, ...]:
        """The ids of all runs, oldest first; the folder is listed again only where something came or went."""
        signature = _signature(self._runs)
        known = self._names
        if signature == known[0]:
            return known[1]
        try:
            names, odd = look(Path(self._runs))
        except (FileNotFoundError, NotADirectoryError):
            names, odd = (), {}
        self._odd = tuple(Row(name, name, "broken", reason=reason) for name, reason in odd.items())
        if signature != NOT_THERE and time.time() - signature[1] / 1e9 < FRESH:
            signature = ()  # what comes next may leave no other time stamp
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
    def begun(self) -> bool:
        """Whether all runs have been looked at, or are being looked at now."""
        return self._look is not None or self._looked > -math.inf

    def refresh(self, *, at_once: bool = False) -> Future[None]:
        """Begins a look at all runs where the last one is too long ago.

        A look takes a `stat` of each folder and of three files in it, and reads the runs that it finds changed. The
        longer it takes, the longer it holds, so that all looks together take no more than `SHARE` of a core.

        Args:
            at_once: look without rests, in this thread, unless another one is at it.

        Returns:
            Done once the entries are those of a look that is not too old.
        """
        with self._lock:
            if self._look is not None:
                return self._look
            future: Future[None] = Future()
            rest = 0.0 if self._cost <= CHEAP else self._cost / SHARE
            if time.monotonic() - self._looked < rest:
                future.set_result(None)
                return future
            self._look = future
        if at_once:
            self._look_at_all(future, rests=False)
        else:
            threading.Thread(target=self._look_at_all, args=(future,), name="llf-runs", daemon=True).start()
        return future

    def _look_at_all(self, future: Future[None], *, rests: bool = True) -> None:
        began, cost = time.monotonic(), time.thread_time()
        try:
            slice_began = began
            for name in reversed(self.names()):
                self._note(name)
                if rests and time.monotonic() - slice_began > AT_ONCE:
                    time.sleep(PAUSE)
                    slice_began = time.monotonic()
        except BaseException as error:  # noqa: BLE001 - whoever waits hears of it
            with self._lock:
                self._look = None
            future.set_exception(error)
            return
        with self._lock:
            self._look = None
            self._looked, self._cost = began, time.thread_time() - cost
        future.set_result(None)

    def _note(self, name: str) -> None:
        """Brings the entry of a run up to date."""
        signature = self._signature(name, FOUND_BY)
        known = self._entries.get(name)
        if known is not None and known[0] == signature and known[1].state in SETTLED:
            return
        folder = self.folder(name)
        row = listing.read_row(folder, curve=False)
        self._keep(name, signature, replace(row, loss=last_loss(folder)))

    def _keep(self, name: str, signature: Signature, row: Row) -> None:
        output = _is_folder(f"{self._runs}/{name}/output")
        entry = Entry(searched_text(row), row.state, row.name.lower(), _by_loss(row), output)
        with self._lock:
            known = self._entries.get(name)
            self._entries[name] = (signature, entry)
            if known is None or known[1] != entry:
                self._generation += 1

    def _find(self, names: tuple[str, ...], asked: Asked, gone: Callable[[], bool]) -> tuple[str, ...]:
        """The ids of what is asked for, in order; kept until an entry changes."""
        search, state = asked.search, asked.state
        key = (search.words, state, asked.sort)
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
        for word in search.words:  # most runs lack one of them, and this is fast
            chosen = [one for one in chosen if word in one[1].text or word in one[0]]
            if gone():
                raise GoneError
        if search.words:
            chosen = [one for one in chosen if search.finds_in(one[1].text, one[0])]
        found = tuple(name for name, _ in ORDERS[asked.sort](chosen))
        with self._lock:
            self._results[*key, generation] = found
            while len(self._results) > KEPT_RESULTS:
                self._results.popitem(last=False)
        return found

    def _row(self, name: str) -> Row:
        signature = self._signature(name, SHOWN_BY)
        known = self._rows.get(name)
        if known is not None and known[0] == signature and known[1].state in SETTLED:
            return known[1]
        found_by = self._signature(name, FOUND_BY)
        row = listing.read_row(self.folder(name))
        with self._lock:
            self._rows[name] = (signature, row)
        self._keep(name, found_by, row)
        return row

    def _signature(self, name: str, files: tuple[str, ...]) -> Signature:
        """What changes when one of the files does, or an entry of the folder."""
        path = f"{self._runs}/{name}"
        parts = _signature(path)
        for file in files:
            parts += _signature(f"{path}/{file}")
        return parts


default_home = home


class Asked:
    """Which runs are asked for, and in which order.

    Args:
        state: only runs shown in this state.
        query: only runs that these words are found in.
        sort: their order.

    Raises:
        ValueError: `sort` is none that is known, or the query is too long.
    """

    def __init__(self, state: str | None = None, query: str | None = None, sort: str = "newest") -> None:
        if sort not in ORDERS:
            raise ValueError(f"sort is {sort[:40]!r}. Expected one of {', '.join(ORDERS)}.")
        self.state, self.sort = state or None, sort
        self.search = Search(query or "")

    def takes(self, row: Row) -> bool:
        """Whether a row is among them."""
        return self.state in {None, row.state} and self.search.finds_in(searched_text(row), row.id)

    @property
    def plain(self) -> bool:
        """Whether the ids alone tell: nothing is searched or filtered, and their own order is asked for."""
        return not self.state and not self.search.words and self.sort in {"newest", "oldest"}


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
        ValueError: `sort` is none of these, or the query has too many words or characters.
    """
    return RunIndex(home).page(offset, limit, state, query, sort)


def active_runs(home: Path | str | None = None) -> list[Row]:
    """The runs that are going now, newest first: a form names them before Start, for they use the device."""
    active = {"created", "starting", "running", "stopping"}
    index = RunIndex(home)
    rows = (listing.read_row(index.folder(name), curve=False) for name in reversed(index.names()))
    return [row for row in rows if row.state in active]


def _is_folder(path: str) -> bool:
    """Whether a folder is there that is no link."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)  # for each of many runs
    except OSError:
        return False


def _signature(path: str) -> Signature:
    """What changes when a file or a folder does."""
    try:
        facts = os.stat(path)  # noqa: PTH116 - for each of many runs
    except OSError:
        return NOT_THERE
    return (facts.st_ino, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_size)


def _by_loss(row: Row) -> tuple[bool, float]:
    loss = math.inf if row.loss is None or math.isnan(row.loss) else row.loss
    return (loss == math.inf or row.state in {"failed", "broken"}, loss)
