from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from typing import TYPE_CHECKING

from jupyter_server.auth.decorator import authorized
from tornado.web import HTTPError, authenticated

from llf_core.untrusted import NotPlainError, json_value
from llf_widgets.home import home_hash
from llf_widgets.monitor.run_view import PARTS, WATCHED, WIDEST, Options, RunView
from llf_widgets.monitor.static import bundle
from llf_widgets.server.handler import RunsAPIHandler, why
from llf_widgets.view_files import script, stylesheet, text

if TYPE_CHECKING:
    from llf_core.runs import RunFolder

KEPT = 12  # runs that are being looked at at once; of another one everything is read again
LONGEST_MARK = 64


class ViewsHandler(RunsAPIHandler):
    """Base of routes that show a run: views are cached, since a page requests the same run twice a second."""

    async def view_of(self, folder: RunFolder) -> RunView:
        """The view of a run; recreated if another run has taken its place.

        Raises:
            FileNotFoundError: the folder is being removed.
        """
        views: OrderedDict[tuple[str, int], RunView] = self.settings.setdefault("llf_views", OrderedDict())
        key = (str(folder.path), (await self.off_loop(folder.path.stat)).st_ino)
        view = views.pop(key, None) or RunView(folder)
        views[key] = view
        while len(views) > KEPT:
            views.popitem(last=False)
        return view


class MonitorHandler(ViewsHandler):
    """The parts of a run's monitor."""

    @authenticated
    @authorized
    async def get(self, run_id: str) -> None:
        """Return `{"home", "now", "marks", "parts"}`, with the parts whose mark is not in the query's `have`.

        Raises:
            HTTPError: 400 for an invalid query, 404 if the run does not exist, 409 if it is unreadable.
        """
        folder = await self.find_run(run_id)
        options = Options(
            details=bool(self.integer("details", 0, 0, 1)),
            window=self.integer("window", 0, 0, WIDEST),
            narrow=bool(self.integer("narrow", 0, 0, 1)),
            older=self.integer("older", 0, 0, WATCHED),
        )
        have = read_marks(self.get_query_argument("have", "{}"))
        try:
            view = await self.view_of(folder)
            news = await self.off_loop(view.news, have, options, turn=folder.id)
        except OSError as error:  # a file that nobody may read, or the folder is just being removed
            if not await self.off_loop(folder.path.exists):
                raise self.gone(run_id) from None
            raise HTTPError(409, "%s", f"Some files of the run cannot be read: {why(error)}") from None
        self.finish({"home": home_hash(), **news})


class SummaryHandler(ViewsHandler):
    """The static summary of a run for saved notebooks."""

    @authenticated
    @authorized
    async def get(self, run_id: str) -> None:
        """Return `{"data"}`: a bundle by MIME type with the run's current state.

        Raises:
            HTTPError: 404 if the run does not exist, 409 if it is unreadable.
        """
        folder = await self.find_run(run_id)
        try:
            view = await self.view_of(folder)
            data = await self.off_loop(summary, view, turn=folder.id)
        except FileNotFoundError:
            raise self.gone(run_id) from None
        except OSError as error:
            raise HTTPError(409, "%s", f"Some files of the run cannot be read: {why(error)}") from None
        self.finish({"data": data})


class FrontEndHandler(RunsAPIHandler):
    """JavaScript and CSS of the monitor, for pages without a kernel."""

    @authenticated
    @authorized
    async def get(self) -> None:
        """Return `{"module", "css"}`; 304 if the client's ETag is current."""
        text = await self.off_loop(front_end)
        self.set_header("Cache-Control", "private, no-cache")
        self.set_header("ETag", f'"{hashlib.sha256(text.encode()).hexdigest()}"')
        if self.check_etag_header():
            self.set_status(304)
            self.finish()
            return
        self.set_header("Content-Type", "application/json")
        self.finish(text)


def front_end() -> str:
    """Module and stylesheet as JSON."""
    return json.dumps({"module": text(script("monitor")), "css": text(stylesheet("monitor"))})


def summary(view: RunView) -> dict[str, object]:
    """The current bundle of a run."""
    view.look()
    return bundle(view.watch)


def read_marks(text: str) -> dict[str, str]:
    """Parse the marks of the client's parts.

    Raises:
        HTTPError: 400 if the text is not an object of short strings.
    """
    try:
        have = json_value(text)
    except NotPlainError:
        raise HTTPError(400, "have is not JSON.") from None
    good = isinstance(have, dict) and all(
        name in PARTS and isinstance(mark, str) and len(mark) <= LONGEST_MARK for name, mark in have.items()
    )
    if not good:
        raise HTTPError(400, f"have is not an object with the keys {', '.join(PARTS)}.")
    return have
