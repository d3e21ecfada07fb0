from __future__ import annotations

from typing import TYPE_CHECKING

from jupyter_server.auth.decorator import authorized
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, authenticated

from llf_core.runs.archive import files_below, zip_chunks
from llf_widgets.server.handler import LONG_TIMEOUT, RunsAPIHandler, os_error_text

if TYPE_CHECKING:
    from pathlib import Path

NO_OUTPUT = "The run has no output yet. It is written when the run finishes."


class ZipHandler(RunsAPIHandler):
    """Base of routes that send a folder for download."""

    async def send_zip(self, root: Path, name: str, empty: str) -> None:
        """Stream a folder as a zip, without buffering it in memory or on disk; `empty` is the error for no files."""
        try:
            files = await self.run_in_thread(files_below, root)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise HTTPError(409, "%s", f"Some files of the output cannot be read: {os_error_text(error)}") from None
        if not files:
            raise HTTPError(409, "%s", empty)
        self.set_header("Content-Disposition", f'attachment; filename="{name}.zip"')
        self.set_header("Content-Type", "application/zip")
        chunks, sent = zip_chunks(root, files, name), False
        try:
            while (chunk := await self.run_in_thread(next, chunks, None, max_seconds=LONG_TIMEOUT)) is not None:
                self.write(chunk)
                await self.flush()
                sent = True
        except StreamClosedError:  # the page went away: nobody to tell
            return
        except (OSError, HTTPError) as error:  # somebody deletes it at this moment, or the disk hangs
            if not sent and isinstance(error, HTTPError):
                raise
            why = os_error_text(error) if isinstance(error, OSError) else error.log_message
            self.log.warning("%s could not be sent completely: %s", name, why)
            self.detach().close()  # a cut answer is an error in every browser
            return
        self.finish(set_content_type="application/zip")


class OutputHandler(ZipHandler):
    """A run's result for download."""

    of_hosts = True

    @authenticated
    @authorized
    async def get(self, run_id: str) -> None:
        """Stream `output/` as a zip."""
        folder = await self.find_run(run_id)
        try:
            await self.send_zip(folder.output, folder.id, NO_OUTPUT)
        except FileNotFoundError:  # somebody deletes it at this moment
            raise self.run_not_found(run_id) from None
