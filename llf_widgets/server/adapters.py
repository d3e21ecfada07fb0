from __future__ import annotations

from typing import TYPE_CHECKING

from jupyter_server.auth.decorator import authorized
from tornado.web import authenticated

from llf_core.runs import folder_bytes
from llf_core.untrusted import read_object_or_empty
from llf_widgets.server.handler import SCAN_SECONDS, RunsAPIHandler

if TYPE_CHECKING:
    from pathlib import Path

    from llf_core.runs.run_index import RunIndex


class AdaptersHandler(RunsAPIHandler):
    """Adapters and models of finished runs, paginated."""

    @authenticated
    @authorized
    async def get(self) -> None:
        """Return `{"total", "adapters"}`, newest first."""
        offset = self.integer_argument("offset", 0, 0, 999_999_999)
        limit = self.integer_argument("limit", 20, 1, 200)
        await self.scan_runs(SCAN_SECONDS)
        self.finish(await self.run_in_list_thread(lambda: adapters(self.index, offset, limit)))


def adapters(index: RunIndex, offset: int, limit: int) -> dict[str, object]:
    """Results of finished runs, newest first; only the requested page reads files.

    Returns:
        `{"total", "adapters"}`: `run`, `name`, `base`, `method`, `rank` (LoRA rank; None for other results), `bytes`
        and `ended` (Unix seconds) of each.
    """
    names = index.finished()
    found = []
    for name in names[offset : offset + limit]:
        row, output = index.row(name), index.folder(name).output
        found.append(
            {
                "run": row.id,
                "name": row.name,
                "base": row.model,
                "method": row.method,
                "rank": _rank(output / "adapter_config.json", index.folder(name).path),
                "bytes": folder_bytes(output),
                "ended": row.ended,
            }
        )
    return {"total": len(names), "adapters": found}


def _rank(path: Path, root: Path) -> int | None:
    rank = read_object_or_empty(path, root=root).get("r")
    return rank if isinstance(rank, int) else None
