from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from jupyter_server.auth.decorator import authorized
from tornado.web import HTTPError, authenticated

from llf_core.runs import delete_run, deleted_runs, remove_from_bin, restore_run
from llf_widgets.server.handler import LONG_PATIENCE, RunsAPIHandler, why

if TYPE_CHECKING:
    from collections.abc import Iterator


class BinHandler(RunsAPIHandler):
    """The runs in the bin, a page at a time."""

    @authenticated
    @authorized
    async def get(self) -> None:
        """Answers `{"total", "runs"}`, last deleted first."""
        offset = self.integer("offset", 0, 0, 999_999_999)
        limit = self.integer("limit", 50, 1, 200)
        total, found = await self.off_loop(deleted_runs, None, offset, limit, patience=LONG_PATIENCE)
        self.finish({"total": total, "runs": [one.json() for one in found]})


class DeleteHandler(RunsAPIHandler):
    """Moves a run to the bin."""

    @authenticated
    @authorized
    async def post(self, run_id: str) -> None:
        """Answers `{"id"}`; 409 where the run is going."""
        folder = await self.find_run(run_id, readable=False)
        try:
            with as_sentences():
                await self.off_loop(delete_run, folder.id, patience=LONG_PATIENCE)
        except RuntimeError as error:
            raise HTTPError(409, "%s", error) from None
        except FileNotFoundError:  # somebody else does at this moment
            raise self.gone(run_id) from None
        self.finish({"id": folder.id})


class RestoreHandler(RunsAPIHandler):
    """Brings a run back from the bin."""

    @authenticated
    @authorized
    async def post(self, run_id: str) -> None:
        """Answers `{"id"}`; 404 where the bin has no such run, 409 where one of its id is there again."""
        try:
            with as_sentences():
                await self.off_loop(restore_run, run_id, patience=LONG_PATIENCE)
        except FileExistsError:
            raise HTTPError(409, "A run with this id already exists. Rename or delete it first.") from None
        except (ValueError, FileNotFoundError):
            raise not_in_bin() from None
        self.finish({"id": run_id})


class RemoveHandler(RunsAPIHandler):
    """Removes a run from the bin for good."""

    @authenticated
    @authorized
    async def delete(self, run_id: str) -> None:
        """Answers `{"id"}`; 404 where the bin has no such run."""
        try:
            with as_sentences("Run `llf runs clean` to try again."):
                await self.off_loop(remove_from_bin, run_id, patience=LONG_PATIENCE)
        except (ValueError, FileNotFoundError):
            raise not_in_bin() from None
        self.finish({"id": run_id})


@contextmanager
def as_sentences(advice: str = "") -> Iterator[None]:
    """Says what the system refuses, without the paths that its errors have.

    Raises:
        HTTPError: 409: the bin is held for long, files are another user's, or the disk is full or read-only.
    """
    try:
        yield
    except (FileNotFoundError, FileExistsError):
        raise
    except TimeoutError:
        raise HTTPError(409, "The bin is locked by another process. Try again.") from None
    except OSError as error:
        raise HTTPError(409, "%s", f"Some files could not be moved: {why(error)} {advice}".strip()) from None


def not_in_bin() -> HTTPError:
    """What is said where the bin has no run of an id."""
    return HTTPError(404, "The bin does not contain this run.")
