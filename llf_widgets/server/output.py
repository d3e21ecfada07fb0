from __future__ import annotations

from jupyter_server.auth.decorator import authorized
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, authenticated

from llf_core.runs.zip_stream import files_below, zip_chunks
from llf_widgets.server.handler import LONG_TIMEOUT, RunsAPIHandler, os_error_text


class OutputHandler(RunsAPIHandler):
    """A run's result for download."""

    @authenticated
    @authorized
    async def get(self, run_id: str) -> None:
        """Stream `output/` as a zip, without buffering it in memory or on disk: a model may have many GB.

        Raises:
            HTTPError: 404 if the run does not exist, 409 if it has no result or files are unreadable, 503 if the disk
                did not respond in time.
        """
        folder = await self.find_run(run_id)
        try:
            files = await self.run_in_thread(files_below, folder.output)
        except FileNotFoundError:  # somebody deletes it at this moment
            raise self.run_not_found(run_id) from None
        except OSError as error:
            raise HTTPError(409, "%s", f"Some files of the output cannot be read: {os_error_text(error)}") from None
        if not files:
            raise HTTPError(409, "The run has no output yet. It is written when the run finishes.")
        self.set_header("Content-Disposition", f'attachment; filename="{folder.id}.zip"')
        self.set_header("Content-Type", "application/zip")
        chunks = zip_chunks(folder.output, files, folder.id)
        try:
            while (chunk := await self.run_in_thread(next, chunks, None, max_seconds=LONG_TIMEOUT)) is not None:
                self.write(chunk)
                await self.flush()
        except StreamClosedError:  # the page went away: nobody to tell
            return
        except OSError as error:  # somebody deletes it at this moment: a cut answer is an error in every browser
            self.log.warning("The output of %s could not be sent completely: %s", folder.id, os_error_text(error))
            self.detach().close()
            return
        self.finish(set_content_type="application/zip")
