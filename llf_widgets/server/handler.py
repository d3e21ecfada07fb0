from __future__ import annotations

import asyncio
import re
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

from jupyter_server.base.handlers import APIHandler
from tornado.web import HTTPError

from llf_core.redaction import redact, redact_nested
from llf_core.remote.address import AddressError, parse_address
from llf_core.runs import home, open_run
from llf_core.runs.files import special_file
from llf_core.runs.folder import HomeError
from llf_core.runs.jsonl import spell_non_finite
from llf_core.runs.run_index import RunIndex
from llf_core.untrusted import UnreadableError, real_path

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llf_core.runs import RunFolder

SCAN_SECONDS = 0.3
"""Maximum seconds that a list waits for a scan of all runs; then it answers from the current index."""
Result = TypeVar("Result")
_LIST_THREADS = ThreadPoolExecutor(4, "llf-list")  # of their own: a long download must not keep a list waiting
FILE_THREADS = ThreadPoolExecutor(max_workers=8, thread_name_prefix="llf-server")
"""Threads for file access: a hanging disk blocks neither the event loop nor other requests."""
LONG_THREADS = ThreadPoolExecutor(max_workers=8, thread_name_prefix="llf-server-long")
"""Threads for operations that may exceed `TIMEOUT`: moving, removing, sending files, ending processes."""
MAX_INDEXES = 8
"""Maximum number of folders with runs whose indexes a server keeps."""
STATUS_MESSAGES = {
    403: "Log in to the Jupyter server first, or ask its administrator for permission.",
    404: "This address does not exist, or the request comes from a page of another server.",
    405: "This address does not accept this HTTP method.",
}
"""Messages for status codes without one from Jupyter."""
TIMEOUT, LONG_TIMEOUT = 10.0, 600.0
"""Maximum seconds that a request waits for the files of a run, and for long operations."""


async def _run_in_executor(
    threads: ThreadPoolExecutor, work: Callable[[], Result], max_seconds: float, lock: asyncio.Lock | None = None
) -> Result:
    """Run a function in a thread and return its result.

    Args:
        max_seconds: maximum seconds to wait for the function, and before that for the lock.
        lock: lock held while the function runs, also after the time limit, so that it never occupies two threads.
    """
    if lock is not None:
        try:
            await asyncio.wait_for(lock.acquire(), max_seconds)
        except TimeoutError:
            raise _timeout_error(max_seconds) from None
    future = asyncio.get_running_loop().run_in_executor(threads, work)
    if lock is not None:
        future.add_done_callback(lambda _: lock.release())
    done, _ = await asyncio.wait({future}, timeout=max_seconds)
    if not done:
        future.add_done_callback(lambda late: late.cancelled() or late.exception())  # it is nobody's any more
        raise _timeout_error(max_seconds)
    return future.result()


def _timeout_error(max_seconds: float) -> HTTPError:
    text = f"The files could not be read within {max_seconds:.0f} s."
    return HTTPError(503, f"{text} Check that the disk is available, then try again.")


def _cannot_be_listed(error: OSError) -> HTTPError:
    return HTTPError(409, "%s", f"The runs cannot be listed: {os_error_text(error)}")


def os_error_text(error: OSError) -> str:
    """Why a file of a run was not read or written: a sentence without paths, which the page must not show."""
    return str(error) if isinstance(error, UnreadableError) else f"{error.strerror or type(error).__name__}."


class RunsAPIHandler(APIHandler):
    """Base of all LLF routes: authorization, lookup of runs, file access in threads, and errors as one sentence."""

    auth_resource = "llf_runs"
    of_hosts = False
    """Whether the route also answers for the mirrored runs of another host."""
    # A panel left open must not keep a hub from culling an idle server.
    _track_activity = False

    def initialize(self) -> None:
        """Mark the client as connected."""
        super().initialize()
        self.disconnected = threading.Event()

    def on_connection_close(self) -> None:
        """Mark the client as disconnected, which cancels its search."""
        self.disconnected.set()
        super().on_connection_close()

    async def scan_runs(self, seconds: float) -> None:
        """Start a scan of all runs, and wait at most `seconds` for it."""
        looking = asyncio.wrap_future(self.index.refresh())
        looking.add_done_callback(lambda one: one.cancelled() or one.exception())  # asyncio logs one that nobody reads
        await asyncio.wait({looking}, timeout=seconds)
        if looking.done():
            try:
                looking.result()
            except OSError as error:
                raise _cannot_be_listed(error) from None

    async def run_in_list_thread(self, work: Callable[[], Result]) -> Result:
        """Run a function on the list of runs in its own thread pool, so that downloads never delay lists."""
        try:
            return await _run_in_executor(_LIST_THREADS, work, LONG_TIMEOUT)
        except OSError as error:
            raise _cannot_be_listed(error) from None

    @property
    def root(self) -> Path:
        """The `LLF_HOME` that a request is about: the server's, or with `host=box` the mirrored runs of that host."""
        name = self.get_query_argument("host", "")
        try:
            if not name:
                return home()
            host, run = parse_address(f"ssh://{name}")
            root = host.mirrors()
        except AddressError:
            raise HTTPError(400, "%s", f"host is {name[:40]!r}. Expected a host such as box or me@box:2222.") from None
        except HomeError as error:
            raise HTTPError(409, "%s", error) from None
        if not self.of_hosts:
            raise HTTPError(400, "%s", f"This works for runs of this machine only, not for those of {host}.")
        if run or not (root / "runs").is_dir():
            raise HTTPError(404, "%s", f"No run of {name[:40]} was opened from this machine.")
        return root

    @property
    def index(self) -> RunIndex:
        """The server's index of the runs of `root`, kept between requests."""
        indexes: OrderedDict[Path, RunIndex] = self.settings.setdefault("llf_indexes", OrderedDict())
        root = self.root
        found = indexes.pop(root, None) or RunIndex(root)
        indexes[root] = found
        while len(indexes) > MAX_INDEXES:
            indexes.popitem(last=False)
        return found

    async def run_in_thread(
        self,
        work: Callable[..., object],
        *arguments: object,
        max_seconds: float = TIMEOUT,
        lock: str = "",
        **options: object,
    ) -> Any:
        """Run a function that accesses files in a thread: a hanging disk would block all kernels of the server.

        Args:
            work: called with `arguments` and `options`.
            max_seconds: maximum seconds to wait for the function, and before that for the lock.
            lock: id of a run for which only one such function runs at a time, so that slow files block no other run.
        """
        threads = FILE_THREADS if max_seconds <= TIMEOUT else LONG_THREADS
        return await _run_in_executor(
            threads, partial(work, *arguments, **options), max_seconds, self._run_lock(lock) if lock else None
        )

    def _run_lock(self, name: str) -> asyncio.Lock:
        locks: WeakValueDictionary[str, asyncio.Lock] = self.settings.setdefault("llf_locks", WeakValueDictionary())
        return locks.setdefault(name, asyncio.Lock())

    async def find_run(self, run_id: str, *, readable: bool = True) -> RunFolder:
        """Find a run of this home by id; if `readable`, one without pipes or devices, which would block readers."""
        found: RunFolder = await self.run_in_thread(self._find_run, run_id, self.root, readable=readable)
        return found

    def _find_run(self, run_id: str, root: Path, *, readable: bool) -> RunFolder:
        try:
            folder = open_run(run_id, root)
        except ValueError:
            raise HTTPError(404, "This is not a run id. Expected lower-case letters, digits, '.', '_', '-'.") from None
        except FileNotFoundError:
            folder = None
        # A link may lead anywhere, so a linked folder is no run here.
        if folder is None or real_path(folder.path) != real_path(folder.path.parent) / run_id:
            raise self.run_not_found(run_id)
        special = special_file(folder.path) if readable else None
        if special:
            raise HTTPError(409, "%s", f"{special} of the run is not a regular file. Remove it or the run.")
        return folder

    def run_not_found(self, run_id: str) -> HTTPError:
        """The error 404 for a run that does not exist, or was deleted during the request."""
        return HTTPError(404, f"No run {run_id} in the LLF_HOME of the server.")

    def integer_argument(self, name: str, default: int, low: int, high: int) -> int:
        """Parse an integer of the query, within bounds."""
        text = self.get_query_argument(name, str(default))
        if re.fullmatch(r"\d{1,9}", text, re.ASCII) is None or not low <= int(text) <= high:
            raise HTTPError(400, f"{name} is {text[:40]!r}. Expected an integer from {low} to {high}.")
        return int(text)

    def write(self, chunk: Any) -> None:
        """Write a response: a dict as valid JSON without secrets and NaN, text and bytes as they are."""
        super().write(spell_non_finite(redact_nested(chunk)) if isinstance(chunk, dict) else chunk)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Write one sentence; details of unexpected errors, which may contain paths, go to the server's log only."""
        error = kwargs.get("exc_info", (None, None))[1]
        if isinstance(error, HTTPError) and error.log_message:
            message = error.log_message % error.args
        elif status_code in STATUS_MESSAGES:
            message = STATUS_MESSAGES[status_code]
        else:
            message = "Unexpected error in LLF. See the log of the Jupyter server."
        self.finish({"message": redact(message)})
