from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from jupyter_server.auth.decorator import authorized
from tornado.web import HTTPError, authenticated

from llf_core.runs import RunReader, home, list_runs
from llf_core.runs.status import BrokenRunError
from llf_widgets.server.handler import RunsAPIHandler

if TYPE_CHECKING:
    from llf_core.runs import RunFolder

STATES = frozenset(
    "created starting running stopping finished stopped failed lost broken".split()  # noqa: SIM905
)


class RunsHandler(RunsAPIHandler):
    """The list of runs, a page at a time."""

    @authenticated
    @authorized
    async def get(self) -> None:
        """Answers `{"total", "runs"}`, newest first."""
        offset = self.integer("offset", 0, 0, 999_999_999)
        limit = self.integer("limit", 50, 1, 200)
        state = self.get_query_argument("state", "") or None
        if state is not None and state not in STATES:
            raise HTTPError(400, f"state is {state!r}. Expected one of {', '.join(sorted(STATES))}.")
        query = self.get_query_argument("query", "") or None
        page = await asyncio.to_thread(list_runs, home(), offset, limit, state, query)
        self.finish({"total": page.total, "runs": [row.json() for row in page.rows]})


class RunHandler(RunsAPIHandler):
    """One run."""

    @authenticated
    @authorized
    async def get(self, run_id: str) -> None:
        """Answers `{"id", "status", "meta"}`."""
        folder = self.find_run(run_id)
        status, meta = await asyncio.to_thread(read, folder)
        self.finish({"id": folder.id, "status": status, "meta": meta})


def read(folder: RunFolder) -> tuple[dict[str, Any], dict[str, Any]]:
    """Status and meta of a run; of a broken one its state is `broken`, with the reason."""
    reader = RunReader(folder)
    try:
        return reader.status().json(), reader.meta()
    except BrokenRunError as error:
        return {"state": "broken", "reason": str(error)}, reader.meta()
