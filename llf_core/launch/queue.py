"""Runs that wait for their turn on one machine.

A queued run has a supervisor of its own from the beginning, which waits: so the queue outlives cell, kernel and server
like everything else, and there is nobody who must keep it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llf_core.runs import read_meta, status
from llf_core.runs.files import json_bytes, locked, replace_file
from llf_core.runs.lock import lock_path
from llf_core.runs.pace import pace, remaining
from llf_core.runs.process import host
from llf_core.runs.run_index import RunIndex

if TYPE_CHECKING:
    from pathlib import Path

    from llf_core.runs import RunFolder

REST, LONGEST_REST = 2.0, 30.0
"""Seconds between two looks at the runs ahead, for each of them, and at most."""


def enter(folder: RunFolder) -> None:
    """Has a run that is not started yet wait for its turn."""
    replace_file(folder.queue, json_bytes({"v": 1, "since": time.time()}))


@dataclass(frozen=True)
class Ahead:
    """A run that another one waits for.

    Attributes:
        id: the run's.
        name: what views call it.
        waits: it is in the queue itself.
        step: it has made.
        total: it will make.
        remaining: seconds to its end, where its last steps tell; None else.
    """

    id: str
    name: str
    waits: bool
    step: int
    total: int
    remaining: float | None

    def __str__(self) -> str:
        """Its name, where it is, and how long it will take: `tune (step 40 of 100), about 3 min`."""
        steps = f" (step {self.step:,} of {self.total:,})" if self.total else ""
        left = f", about {max(1, round(self.remaining / 60))} min" if self.remaining else ""
        return f"{self.name}{steps}{left}"


class Machine:
    """What goes on this machine, and what waits for its turn on it.

    A look costs one `stat` a run: of those that have ended nothing is read again.

    Args:
        home: `LLF_HOME` where it is not the environment's.
    """

    def __init__(self, home: Path | str | None = None) -> None:
        self._index = RunIndex(home)
        self._ended: dict[str, int] = {}  # when the status of an ended run was written

    def ahead(self) -> list[Ahead]:
        """What a run would wait for that entered the queue now, in order."""
        going, waiting = self.look()
        return [*going, *(one for _, one in waiting)]

    def look(self, *, but: str = "") -> tuple[list[Ahead], list[tuple[tuple[float, str], Ahead]]]:
        """What goes, and what waits with its place.

        Args:
            but: the id of a run that is left out.
        """
        going: list[Ahead] = []
        waiting: list[tuple[tuple[float, str], Ahead]] = []
        for name in self._index.names():
            folder = self._index.folder(name)
            try:
                written = folder.status.stat().st_mtime_ns
                if name == but or self._ended.get(name) == written:
                    continue
                now = status.effective_status(status.read_status(folder))
            except (OSError, status.BrokenRunError):
                continue
            if now.final or now.state == "lost":
                self._ended[name] = written
            elif now.host in {None, host()}:
                waits = now.state == "created" and folder.queue.exists()
                left = remaining(now.state, now.step, now.total, pace(folder, now))
                one = Ahead(name, read_meta(folder)["name"] or name, waits, now.step, now.total, left)
                if waits:
                    waiting.append(((now.created, name), one))
                else:  # one that was just made and starts at once is going too
                    going.append(one)
        return going, sorted(waiting, key=lambda pair: pair[0])


class Turn:
    """Tells a waiting run when it may begin: when nothing else goes on this machine, and none has waited longer.

    Args:
        folder: the run.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._machine = Machine(folder.home)

    def ahead(self) -> list[Ahead]:
        """The runs that come before it, in their order: what goes now, then what has waited longer."""
        mine = self._place()
        going, waiting = self._machine.look(but=self._folder.id)
        return [*going, *(one for place, one in waiting if place < mine)]

    def behind(self) -> int:
        """How many wait after it."""
        mine = self._place()
        return sum(place > mine for place, _ in self._machine.look(but=self._folder.id)[1])

    def rest(self) -> float:
        """Seconds until another look is worth it: the more are ahead, the longer."""
        return min(LONGEST_REST, REST * max(1, len(self.ahead())))

    def take(self, attempt: int) -> bool:
        """Begins, where nothing is ahead: the status says `starting` before anybody else can look.

        Args:
            attempt: that wants to begin; where a later one was begun meanwhile, it does not.
        """
        if self.ahead():
            return False
        try:
            with locked(lock_path(self._folder.home, "queue")):
                if self.ahead():
                    return False
                now = status.update(self._folder, of_attempt=attempt, state="starting")
        except TimeoutError:  # the next look is soon enough
            return False
        if now.state != "starting" or now.attempt != attempt:
            return False
        self._folder.queue.unlink(missing_ok=True)
        return True

    def _place(self) -> tuple[float, str]:
        return status.read_status(self._folder).created, self._folder.id
