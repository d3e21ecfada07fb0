from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from jupyter_server.auth.decorator import authorized
from tornado.web import HTTPError, authenticated

from llf_core.runs import delete_run, deleted_runs, remove_from_bin, restore_run
from llf_core.runs.folder import HomeError
from llf_widgets.server.handler import LONG_TIMEOUT, RunsAPIHandler, os_error_text

if TYPE_CHECKING:
    from collections.abc import Iterator


class BinHandler(RunsAPIHandler):
    """The runs in the bin, paginated."""

    @authenticated
    @authorized
    async def get(self) -> None:
        """Return `{"total", "runs"}`, last deleted first."""
        offset = self.integer_argument("offset", 0, 0, 999_999_999)
        limit = self.integer_argument("limit", 50, 1, 200)
        try:
            total, found = await self.run_in_thread(deleted_runs, None, offset, limit, max_seconds=LONG_TIMEOUT)
        except HomeError as error:
            raise HTTPError(409, "%s", error) from None
        except OSError as error:
            raise HTTPError(409, "%s", f"The bin cannot be listed: {os_error_text(error)}") from None
        self.finish({"total": total, "runs": [one.json() for one in found]})


class DeleteHandler(RunsAPIHandler):
    """Moves a run to the bin."""

    @authenticated
    @authorized
    async def post(self, run_id: str) -> None:
        """Move an ended run to the bin and return `{"id"}`; a trainer would write to its old path."""
        folder = await self.find_run(run_id, readable=False)
        try:
            with _as_http_errors():
                await self.run_in_thread(delete_run, folder.id, max_seconds=LONG_TIMEOUT)
        except RuntimeError as error:
            raise HTTPError(409, "%s", error) from None
        except FileNotFoundError:  # somebody else does at this moment
            raise self.run_not_found(run_id) from None
        self.finish({"id": folder.id})


class RestoreHandler(RunsAPIHandler):
    """Restores a run from the bin."""

    @authenticated
    @authorized
    async def post(self, run_id: str) -> None:
        """Restore the run and return `{"id"}`."""
        try:
            with _as_http_errors():
                await self.run_in_thread(restore_run, run_id, max_seconds=LONG_TIMEOUT)
        except FileExistsError:
            message = "A run with this id already exists. Move its folder elsewhere: deleting it replaces this one."
            raise HTTPError(409, message) from None
        except (ValueError, FileNotFoundError):
            raise _not_in_bin() from None
        self.finish({"id": run_id})


class RemoveHandler(RunsAPIHandler):
    """Removes a run from the bin permanently."""

    @authenticated
    @authorized
    async def delete(self, run_id: str) -> None:
        """Remove the run and return `{"id"}`."""
        try:
            with _as_http_errors("Run `llf runs clean` to try again."):
                await self.run_in_thread(remove_from_bin, run_id, max_seconds=LONG_TIMEOUT)
        except (ValueError, FileNotFoundError):
            raise _not_in_bin() from None
        self.finish({"id": run_id})


@contextmanager
def _as_http_errors(advice: str = "") -> Iterator[None]:
    """Convert system errors to HTTP errors, without paths, since the page may be shared.

    `FileNotFoundError` and `FileExistsError` pass through: each handler has a sentence of its own for them.
    """
    try:
        yield
    except (FileNotFoundError, FileExistsError):
        raise
    except TimeoutError:
        raise HTTPError(409, "The bin is locked by another process. Try again.") from None
    except OSError as error:
        raise HTTPError(409, "%s", f"Some files could not be moved: {os_error_text(error)} {advice}".strip()) from None


def _not_in_bin() -> HTTPError:
    return HTTPError(404, "The bin does not contain this run.")
