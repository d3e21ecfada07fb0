from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from typing import TYPE_CHECKING

from jupyter_server.auth.decorator import authorized
from tornado.web import HTTPError, authenticated

from llf_core.runs.status import BrokenRunError
from llf_core.untrusted import NotPlainError, json_value
from llf_widgets.home import home_hash
from llf_widgets.monitor.mime_bundle import mime_bundle
from llf_widgets.monitor.run_view import MAX_OLDER, MAX_WINDOW, SECTIONS, RunView, ViewOptions
from llf_widgets.server.handler import RunsAPIHandler, os_error_text
from llf_widgets.view_files import script, stylesheet, text

if TYPE_CHECKING:
    from llf_core.runs import RunFolder

MAX_VIEWS = 12  # runs that are being looked at at once; of another one everything is read again
MAX_REVISION_LENGTH = 64


class ViewsHandler(RunsAPIHandler):
    """Base of routes that show a run, with cached views, since a page requests the same run twice a second."""

    of_hosts = True

    async def run_view(self, folder: RunFolder) -> RunView:
        """The cached view of a run, recreated if another run has taken its place."""
        views: OrderedDict[tuple[str, int], RunView] = self.settings.setdefault("llf_views", OrderedDict())
        key = (str(folder.path), (await self.run_in_thread(folder.path.stat)).st_ino)
        view = views.pop(key, None) or RunView(folder)
        views[key] = view
        while len(views) > MAX_VIEWS:
            views.popitem(last=False)
        return view


class MonitorHandler(ViewsHandler):
    """The sections of a run's monitor."""

    @authenticated
    @authorized
    async def get(self, run_id: str) -> None:
        """Return `{"home", "now", "revisions", "sections"}`: the sections whose revision differs from the query's."""
        folder = await self.find_run(run_id)
        options = ViewOptions(
            details=bool(self.integer_argument("details", 0, 0, 1)),
            window=self.integer_argument("window", 0, 0, MAX_WINDOW),
            narrow=bool(self.integer_argument("narrow", 0, 0, 1)),
            older=self.integer_argument("older", 0, 0, MAX_OLDER),
        )
        known = _parse_revisions(self.get_query_argument("revisions", "{}"))
        try:
            view = await self.run_view(folder)
            updates = await self.run_in_thread(view.updates, known, options, lock=folder.id)
        except OSError as error:  # a file that nobody may read, or the folder is just being removed
            if not await self.run_in_thread(folder.path.exists):
                raise self.run_not_found(run_id) from None
            raise HTTPError(409, "%s", f"Some files of the run cannot be read: {os_error_text(error)}") from None
        except BrokenRunError as error:
            raise HTTPError(409, "%s", error) from None
        self.finish({"home": home_hash(self.root), **updates})


class SummaryHandler(ViewsHandler):
    """The static summary of a run, which the page stores in the saved notebook."""

    @authenticated
    @authorized
    async def get(self, run_id: str) -> None:
        """Return `{"data"}`: a bundle by MIME type with the run's current state."""
        folder = await self.find_run(run_id)
        try:
            view = await self.run_view(folder)
            data = await self.run_in_thread(summary, view, lock=folder.id)
        except FileNotFoundError:
            raise self.run_not_found(run_id) from None
        except OSError as error:
            raise HTTPError(409, "%s", f"Some files of the run cannot be read: {os_error_text(error)}") from None
        except BrokenRunError as error:
            raise HTTPError(409, "%s", error) from None
        self.finish({"data": data})


class FrontEndHandler(RunsAPIHandler):
    """JavaScript and CSS of the monitor, for pages without a kernel."""

    @authenticated
    @authorized
    async def get(self) -> None:
        """Return `{"module", "css"}`; 304 if the client's ETag is current."""
        text = await self.run_in_thread(front_end)
        self.set_header("Cache-Control", "private, no-cache")
        self.set_header("ETag", f'"{hashlib.sha256(text.encode()).hexdigest()}"')
        if self.check_etag_header():
            self.set_status(304)
            self.finish()
            return
        self.set_header("Content-Type", "application/json")
        self.finish(text)


def front_end() -> str:
    """Module and stylesheet of the monitor as JSON text."""
    return json.dumps({"module": text(script("monitor")), "css": text(stylesheet("monitor"))})


def summary(view: RunView) -> dict[str, object]:
    """The MIME bundle of a run in its current state, see `mime_bundle.mime_bundle`."""
    view.refresh()
    return mime_bundle(view.tracker)


def _parse_revisions(text: str) -> dict[str, str]:
    try:
        known = json_value(text)
    except NotPlainError:
        raise HTTPError(400, "revisions is not JSON.") from None
    found = {
        name: revision
        for name, revision in (known.items() if isinstance(known, dict) else ())
        if name in SECTIONS and isinstance(revision, str) and len(revision) <= MAX_REVISION_LENGTH
    }
    if not isinstance(known, dict) or len(found) < len(known):
        raise HTTPError(400, f"revisions is not an object with the keys {', '.join(SECTIONS)}.")
    return found
