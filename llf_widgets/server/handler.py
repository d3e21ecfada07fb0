from __future__ import annotations

import asyncio
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

from jupyter_server.base.handlers import APIHandler
from tornado.web import HTTPError

from llf_core.door import UnreadableError
from llf_core.redaction import redact, redact_nested
from llf_core.runs import home, open_run
from llf_core.runs.files import special_file
from llf_core.runs.jsonl import spell_non_finite
from llf_core.runs.run_index import RunIndex

if TYPE_CHECKING:
    from collections.abc import Callable

    from llf_core.runs import RunFolder

LOOK_SECONDS = 0.3
"""What a list waits for a look at all runs; then it answers by what is known."""
T = TypeVar("T")
_LIST_THREADS = ThreadPoolExecutor(4, "llf-list")  # of their own: a long download must not keep a list waiting
THREADS = ThreadPoolExecutor(max_workers=8, thread_name_prefix="llf-server")
"""Where files are read and written: a disk that hangs holds up neither the server's loop nor what else it does."""
LONG_THREADS = ThreadPoolExecutor(max_workers=8, thread_name_prefix="llf-server-long")
"""Where that is done which may take longer than `PATIENCE`: moving, removing, sending files, ending processes."""
NO_WORD = {
    403: "Log in to the Jupyter server first, or ask its administrator for permission.",
    404: "This address does not exist, or the request comes from a page of another server.",
    405: "This address does not accept this HTTP method.",
}
"""What is said of a refusal for which Jupyter has no words."""
PATIENCE, LONG_PATIENCE = 10.0, 600.0
"""Seconds that a request waits for the files of a run, and for those of many or for moving them."""


async def _waited(
    threads: ThreadPoolExecutor, work: Callable[[], T], patience: float, turn: asyncio.Lock | None = None
) -> T:
    """What some work in a thread returns.

    Args:
        threads: where it is done.
        work: what is called.
        patience: seconds to wait for it.
        turn: is held while the work goes on, also beyond the patience: it never takes two threads.

    Raises:
        HTTPError: 503, where it takes longer than `patience`. The thread goes on by itself.
    """
    if turn is not None:
        try:
            await asyncio.wait_for(turn.acquire(), patience)
        except TimeoutError:
            raise _late(patience) from None
    future = asyncio.get_running_loop().run_in_executor(threads, work)
    if turn is not None:
        future.add_done_callback(lambda _: turn.release())
    done, _ = await asyncio.wait({future}, timeout=patience)
    if not done:
        future.add_done_callback(lambda late: late.cancelled() or late.exception())  # it is nobody's any more
        raise _late(patience)
    return future.result()


def _late(patience: float) -> HTTPError:
    return HTTPError(
        503, (f"The files could not be read within {patience:.0f} s. Check that the disk is available, then try again.")
    )


def why(error: OSError) -> str:
    """Why a file of a run was not read or written, as a sentence without paths of this machine."""
    return str(error) if isinstance(error, UnreadableError) else f"{error.strerror}."


class RunsAPIHandler(APIHandler):
    """What all routes of LLF share: the authorization resource, and runs found by id."""

    auth_resource = "llf_runs"
    # A panel left open must not keep a hub from culling an idle server.
    _track_activity = False

    def initialize(self) -> None:
        """Notes that somebody waits for the answer."""
        super().initialize()
        self.gone_away = threading.Event()

    def on_connection_close(self) -> None:
        """Notes that nobody waits for the answer any more."""
        self.gone_away.set()
        super().on_connection_close()

    async def look(self, seconds: float) -> None:
        """Has the index look at all runs, and waits for it, though not for long."""
        looking = asyncio.wrap_future(self.index.refresh())
        await asyncio.wait({looking}, timeout=seconds)
        if looking.done():
            looking.result()

    async def in_list_thread(self, work: Callable[[], T]) -> T:
        """What some work on the list returns, done in a thread."""
        return await _waited(_LIST_THREADS, work, LONG_PATIENCE)

    @property
    def index(self) -> RunIndex:
        """What this server knows of the runs of its LLF_HOME; made anew where that has changed."""
        root = home()
        known = self.settings.get("llf_index")
        if known is None or known[0] != root:
            known = self.settings["llf_index"] = (root, RunIndex(root))
        return known[1]

    async def off_loop(
        self, work: Callable[..., Any], *arguments: Any, patience: float = PATIENCE, turn: str = "", **options: Any
    ) -> Any:
        """Has a thread do what reads or writes files, and returns what comes of it.

        Args:
            work: is called with `arguments` and `options`.
            arguments: of the call.
            patience: seconds to wait.
            turn: an id of a run, of which only one such work is done at a time: files that take long to read hold
                up no other run.
            options: of the call.

        Raises:
            HTTPError: 503, where it takes longer. The thread goes on by itself.
        """
        threads = THREADS if patience <= PATIENCE else LONG_THREADS
        return await _waited(
            threads, partial(work, *arguments, **options), patience, self._turn(turn) if turn else None
        )

    def _turn(self, name: str) -> asyncio.Lock:
        """What is held while something is done that is done once at a time."""
        turns: WeakValueDictionary[str, asyncio.Lock] = self.settings.setdefault("llf_turns", WeakValueDictionary())
        return turns.setdefault(name, asyncio.Lock())

    async def find_run(self, run_id: str, *, readable: bool = True) -> RunFolder:
        """The run of an id, see `_find_run`."""
        found: RunFolder = await self.off_loop(self._find_run, run_id, readable=readable)
        return found

    def _find_run(self, run_id: str, *, readable: bool = True) -> RunFolder:
        """The run of an id.

        Args:
            run_id: from the route.
            readable: refuse a run with a pipe or a device among its files, which no reader would come back from.

        Raises:
            HTTPError: 404, where the id is not one, or its folder is none or lies outside LLF_HOME; 409, where it
                cannot be read.
        """
        try:
            folder = open_run(run_id)
        except ValueError:
            raise HTTPError(404, "This is not a run id. Expected lower-case letters, digits, '.', '_', '-'.") from None
        except FileNotFoundError:
            folder = None
        # A link may lead anywhere, so a linked folder is no run here.
        if folder is None or folder.path.resolve() != folder.path.parent.resolve() / run_id:
            raise self.gone(run_id)
        special = special_file(folder.path) if readable else None
        if special:
            raise HTTPError(409, "%s", f"{special} of the run is not a regular file. Remove it or the run.")
        return folder

    def gone(self, run_id: str) -> HTTPError:
        """What is said of a run that is not there, or not there any more."""
        return HTTPError(404, f"No run {run_id} in the LLF_HOME of the server.")

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number of the query.

        Raises:
            HTTPError: 400, where it is none or out of range.
        """
        text = self.get_query_argument(name, str(default))
        if re.fullmatch(r"\d{1,9}", text, re.ASCII) is None or not low <= int(text) <= high:
            raise HTTPError(400, f"{name} is {text[:40]!r}. Expected an integer from {low} to {high}.")
        return int(text)

    def write(self, chunk: Any) -> None:
        """An answer that every browser reads, without secrets: JSON has no NaN, and a run's files may."""
        super().write(spell_non_finite(redact_nested(chunk)) if isinstance(chunk, dict) else chunk)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """One sentence; of an unexpected error nothing but that it is in the server's log."""
        error = kwargs.get("exc_info", (None, None))[1]
        if isinstance(error, HTTPError) and error.log_message:
            message = error.log_message % error.args
        elif status_code in NO_WORD:
            message = NO_WORD[status_code]
        else:
            message = "Unexpected error in LLF. See the log of the Jupyter server."
        self.finish({"message": redact(message)})
