from __future__ import annotations

from typing import TYPE_CHECKING

from jupyter_server.auth.decorator import authorized
from tornado.web import authenticated

from llf_core.remote.address import AddressError, parse_address
from llf_core.runs.folder import run_ids
from llf_widgets.server.handler import RunsAPIHandler

if TYPE_CHECKING:
    from pathlib import Path


class HostsHandler(RunsAPIHandler):
    """The other hosts whose runs are mirrored here."""

    @authenticated
    @authorized
    async def get(self) -> None:
        """Return `{"hosts": [{"host": "box", "runs": 3}, …]}`, by name."""
        root = self.root
        self.finish({"hosts": await self.run_in_list_thread(lambda: hosts(root))})


def hosts(root: Path) -> list[dict[str, object]]:
    """Names of the hosts with mirrored runs below `LLF_HOME` (`root`), with the number of runs."""
    try:
        places = sorted(path for path in (root / "remote").iterdir() if (path / "runs").is_dir())
    except FileNotFoundError:
        return []
    return [{"host": path.name, "runs": len(run_ids(path))} for path in places if _is_host(path.name)]


def _is_host(name: str) -> bool:
    try:
        return parse_address(f"ssh://{name}")[1] == ""
    except AddressError:
        return False
