from __future__ import annotations

from typing import TYPE_CHECKING

from jupyter_server.utils import url_path_join

from llf_widgets.server.adapters import AdaptersHandler
from llf_widgets.server.bin import BinHandler, DeleteHandler, RemoveHandler, RestoreHandler
from llf_widgets.server.code import CodeHandler
from llf_widgets.server.control import ControlHandler
from llf_widgets.server.hosts import HostsHandler
from llf_widgets.server.meta import MetaHandler
from llf_widgets.server.monitor import FrontEndHandler, MonitorHandler, SummaryHandler
from llf_widgets.server.output import OutputHandler
from llf_widgets.server.results import ExportHandler
from llf_widgets.server.runs import RunHandler, RunsHandler
from llf_widgets.server.version import VersionHandler

if TYPE_CHECKING:
    from jupyter_server.base.handlers import APIHandler
    from tornado.web import Application

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
