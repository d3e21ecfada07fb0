"""The status of a run that a cluster has queued, written by the process that waits for it there."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from llf_core.runs import RunWriter, status
from llf_core.runs.control import pending_requests, remove_request
from llf_core.runs.process import ProcessId

if TYPE_CHECKING:
    from llf_core.runs import Request, RunFolder, Status


class WaitingRun:
    """A run whose supervisor is started elsewhere.

    Args:
        host: name that its status has until then: none of this machine, so that its queue does not wait for it.
    """

    def __init__(self, folder: RunFolder, host: str) -> None:
        self._folder = folder
        self._host = host

    def heartbeat(self, attempt: int) -> None:
        """Say that the run still waits."""
        own, beat = ProcessId.own().json(), time.time()
        status.update(self._folder, of_attempt=attempt, host=self._host, boot_id=None, supervisor=own, heartbeat=beat)

    def requests(self, *types: str) -> list[Request]:
        """Requests of these types that nobody has taken."""
        return [one for one in pending_requests(self._folder) if one.type in types]

    def close(self, now: Status, state: str, reason: str) -> None:
        """Write why the run ended where its supervisor has not, and answer what it was asked."""
        self._folder.queue.unlink(missing_ok=True)
        writer = RunWriter(self._folder, now.attempt)
        writer.close(state, reason)
        for request in self.requests("stop", "kill"):
            writer.event("answer", id=request.id, request=request.type, ok=True, message=reason)
            remove_request(request)
        writer.release()
