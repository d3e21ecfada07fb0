"""Status of a run that a cluster has queued."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from llf_core.runs import RunWriter, status
from llf_core.runs.control import pending_requests, remove_request
from llf_core.runs.process import ProcessId

if TYPE_CHECKING:
    from llf_core.runs import Request, RunFolder, Status


class WaitingRun:
    """A run whose supervisor is started elsewhere; until then `host`, not this machine, is in its status."""

    def __init__(self, folder: RunFolder, host: str) -> None:
        self._folder = folder
        self._host = host

    def heartbeat(self, attempt: int) -> None:
        """Record that the run still waits."""
        own, beat = ProcessId.own().json(), time.time()
        status.update(self._folder, of_attempt=attempt, host=self._host, boot_id=None, supervisor=own, heartbeat=beat)

    def requests(self, *types: str) -> list[Request]:
        """Pending requests of these types."""
        return [one for one in pending_requests(self._folder) if one.type in types]

    def close(self, now: Status, state: str, reason: str) -> None:
        """Write why the run ended if its supervisor has not, and answer its pending requests."""
        self._folder.queue.unlink(missing_ok=True)
        writer = RunWriter(self._folder, now.attempt)
        writer.close(state, reason)
        for request in self.requests("stop", "kill"):
            writer.event("answer", id=request.id, request=request.type, ok=True, message=reason)
            remove_request(request)
        writer.release()
