from __future__ import annotations

from importlib.util import find_spec

from jupyter_server.auth.decorator import authorized
from tornado.web import HTTPError, authenticated

from llf_core import __version__
from llf_core.runs.folder import HomeError
from llf_widgets.home import display_runs_path, home_hash
from llf_widgets.server.handler import RunsAPIHandler

FORMATS = (1,)


class VersionHandler(RunsAPIHandler):
    """Facts about the server, which `llf.check()` compares with the kernel."""

    @authenticated
    @authorized
    async def get(self) -> None:
        """Return version, readable formats, hash and shown path of LLF_HOME, and whether torch is installed here."""
        try:
            place = {"home": home_hash(), "folder": display_runs_path()}
        except HomeError as error:
            raise HTTPError(409, "%s", error) from None
        self.finish({"llf": __version__, "formats": FORMATS, **place, "training": find_spec("torch") is not None})
