"""The routes of the server, and what it tells about itself."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from jupyter_server.auth.decorator import authorized
from jupyter_server.utils import url_path_join
from tornado.web import HTTPError, authenticated

from llf_core import __version__
from llf_core.runs.folder import HomeError
from llf_widgets.home import display_runs_path, home_hash
from llf_widgets.server.handler import RunsAPIHandler
from llf_widgets.server.monitor import FrontEndHandler, MonitorHandler, SummaryHandler
from llf_widgets.server.results import AdaptersHandler, ExportHandler, OutputHandler
from llf_widgets.server.runs import (
    BinHandler,
    CodeHandler,
    ControlHandler,
    DeleteHandler,
    HostsHandler,
    MetaHandler,
    RemoveHandler,
    RestoreHandler,
    RunHandler,
    RunsHandler,
)

if TYPE_CHECKING:
    from jupyter_server.base.handlers import APIHandler
    from tornado.web import Application

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


RUN = r"runs/(?P<run_id>[^/]+)"
BINNED = r"bin/(?P<run_id>[^/]+)"
ROUTES: tuple[tuple[str, type[APIHandler]], ...] = (
    ("version", VersionHandler),
    ("runs", RunsHandler),
    (RUN, RunHandler),
    (RUN + r"/output\.zip", OutputHandler),
    (RUN + r"/exports/(?P<key>[^/]+)\.zip", ExportHandler),
    (RUN + "/monitor", MonitorHandler),
    (RUN + "/summary", SummaryHandler),
    ("monitor", FrontEndHandler),
    (RUN + "/code", CodeHandler),
    (RUN + "/control", ControlHandler),
    (RUN + "/meta", MetaHandler),
    (RUN + "/bin", DeleteHandler),
    ("bin", BinHandler),
    (BINNED, RemoveHandler),
    (BINNED + "/restore", RestoreHandler),
    ("adapters", AdaptersHandler),
    ("hosts", HostsHandler),
)


def add_routes(web_app: Application) -> None:
    """Add LLF's routes under the server's base URL."""
    base_url = web_app.settings["base_url"]
    web_app.add_handlers(
        ".*$",
        [(url_path_join(base_url, "llf", "api", route), handler) for route, handler in ROUTES],
    )
