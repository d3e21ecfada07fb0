from __future__ import annotations

import io
import os
import zipfile
from typing import TYPE_CHECKING

from jupyter_server.auth.decorator import authorized
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, authenticated

from llf_core.untrusted import open_file
from llf_widgets.server.handler import LONG_TIMEOUT, RunsAPIHandler, os_error_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from _typeshed import ReadableBuffer

CHUNK = 1 << 20


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
            files = await self.run_in_thread(output_files, folder.output)
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


def output_files(root: Path) -> list[Path]:
    """Regular files below a folder, sorted. Links are skipped, so that nothing else on the machine is sent.

    Each file is opened once, because an error can be reported only before the response begins.

    Raises:
        OSError: a file cannot be opened.
        UnreadableError: a file is not a regular one any more, or the system denies access.
    """
    if root.is_symlink():
        return []
    found = []
    for place, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not os.path.islink(os.path.join(place, name))]  # noqa: PTH114, PTH118
        paths = (root.joinpath(place, name) for name in names)
        found += [path for path in paths if path.is_file() and not path.is_symlink()]
    found.sort()
    for path in found:  # before the answer begins, which could then only break off
        os.close(open_file(path, root))
    return found


def zip_chunks(root: Path, files: list[Path], top: str) -> Iterator[bytes]:
    """Bytes of an uncompressed zip, since weights hardly compress.

    Args:
        root: folder of the files.
        files: files to include.
        top: folder in the archive.

    Yields:
        The bytes in order, about 1 MiB at a time.

    Raises:
        OSError: a file cannot be read.
        UnreadableError: a file is not a regular one any more, or the system denies access.
    """
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED, strict_timestamps=False) as archive:
        for path in files:
            name = os.fsencode(f"{top}/{path.relative_to(root)}").decode("utf-8", "backslashreplace")
            info = zipfile.ZipInfo.from_file(path, name, strict_timestamps=False)
            with os.fdopen(open_file(path, root), "rb") as source, archive.open(info, "w", force_zip64=True) as target:
                while data := source.read(CHUNK):
                    target.write(data)
                    yield sink.take()
    yield sink.take()


class _Sink(io.RawIOBase):
    """A write-only file that keeps data until it is taken."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []

    def write(self, data: ReadableBuffer) -> int:
        chunk = bytes(data)
        self._parts.append(chunk)
        return len(chunk)

    def take(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        return data
