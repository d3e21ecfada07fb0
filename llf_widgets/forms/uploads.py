"""Uploads of data files from the user's computer, in pieces."""

from __future__ import annotations

import filecmp
import os
import re
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.config.paths import COMPRESSED
from llf_core.data.data_file import LongFileError, file_type, limit_file
from llf_core.data.errors import DataError
from llf_core.data.file_readers import READERS, read_file, row_count
from llf_core.data.records import BrokenLine
from llf_core.runs import home
from llf_core.runs.uploads import UPLOADS
from llf_core.user_error import UserError
from llf_widgets.forms.messages import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

MAX_COUNTED_BYTES = 50_000_000
"""Maximum unpacked bytes read to count rows."""
MAX_JSON_BYTES = 200_000_000
"""Maximum bytes read of JSON, which is read as a whole."""
SAMPLE_ROWS = 100
"""Rows read of a file whose format stores its number of rows."""
LISTED_LINES = 3
MAX_NAME_BYTES = 180
"""Maximum bytes of a name without its suffix: file systems allow 255, and a number may be appended."""
_SUFFIXES = ", ".join(f".{kind}" for kind in READERS)


class UploadError(UserError, ValueError):
    """The upload failed; the message is for the user."""


@dataclass(frozen=True)
class UploadResult:
    """A completed upload: the new value of `dataset`, and a message about location and rows."""

    name: str
    message: str


class Upload:
    """An upload in progress. Pieces go to a hidden file, so that an interrupted upload never looks complete.

    Args:
        name: file name on the user's computer.
        folder: target folder; if it is not writable, `LLF_HOME/uploads` is used; None for the working directory.

    Raises:
        UploadError: the name is not that of a data file, no folder is writable, or `LLF_HOME` cannot be located.
    """

    def __init__(self, name: str, folder: Path | None = None) -> None:
        self.name = _plain(name)
        if file_type(Path(self.name)) not in READERS:
            raise UploadError(f"`{self.name}` was not uploaded: it is not a data file. Expected one of {_SUFFIXES}.")
        try:
            self._folder = (folder or Path.cwd()).absolute()
            self._target = _writable(self._folder, home() / UPLOADS)
            handle, partial = tempfile.mkstemp(prefix=".llf-upload-", suffix=_suffix(self.name), dir=self._target)
        except OSError as error:
            raise self._upload_error(f"it cannot be written ({error.strerror})") from None
        os.close(handle)
        self._partial = Path(partial)

    def append(self, piece: bytes) -> None:
        """Append the next piece.

        Raises:
            UploadError: it cannot be written; the partial file is removed.
        """
        try:
            with self._partial.open("ab") as file:
                file.write(piece)
        except OSError as error:
            self.cancel()
            raise self._upload_error(f"it cannot be written ({error.strerror})") from None

    def finish(self) -> UploadResult:
        """Check the complete file and rename it; another file of this name is kept.

        Raises:
            UploadError: it cannot be read or renamed; the file is removed.
        """
        try:
            rows = self._rows()
            path = self._move_to_free_name()
        except (DataError, OSError) as error:
            self.cancel()
            reason = f"it cannot be saved ({error.strerror})" if isinstance(error, OSError) else str(error)
            raise self._upload_error(reason.replace(str(self._partial), "it").rstrip(".")) from None
        in_folder = path.parent == self._folder
        where = (
            "the folder of the notebook"
            if in_folder
            else f"`{path.parent}`, since the folder of the notebook is read-only"
        )
        return UploadResult(path.name if in_folder else str(path), f"Saved as `{path.name}` in {where}: {rows}")

    def cancel(self) -> None:
        """Cancel the upload and remove the partial file."""
        with suppress(OSError):
            self._partial.unlink()

    def _rows(self) -> str:
        known, kind = row_count(self._partial), file_type(self._partial)
        max_bytes = MAX_JSON_BYTES if kind == "json" else MAX_COUNTED_BYTES
        rows, broken, complete = 0, [], True
        try:
            for entry in islice(
                read_file(limit_file(self._partial, max_bytes)), None if known is None else SAMPLE_ROWS
            ):
                if isinstance(entry, BrokenLine):
                    broken.append(entry)
                else:
                    rows += 1
        except LongFileError:
            complete = False
            if not rows:
                size = f"larger than {max_bytes / 1e6:,.0f} MB unpacked"
                if kind == "json":
                    raise DataError(
                        f"it is {size}, and a JSON file is loaded into memory as a whole. Expected one object per "
                        "line (.jsonl)."
                    ) from None
                raise DataError(f"its first row is {size}. Expected shorter rows.") from None
        rows = rows if known is None else known
        if not rows:
            raise DataError(f"it has no rows{f' (line {broken[0].line}: {broken[0].reason})' if broken else ''}.")
        counted = f"{rows:,} {'row' if rows == 1 else 'rows'}." if complete else f"more than {rows:,} rows."
        if not broken:
            return counted
        lines = "; ".join(f"line {flaw.line}: {flaw.reason}" for flaw in broken[:LISTED_LINES])
        more = f"; {len(broken) - LISTED_LINES:,} more" if len(broken) > LISTED_LINES else ""
        skipped = "is skipped" if len(broken) == 1 else "are skipped"
        return f"{counted} {len(broken):,} cannot be read and {skipped} ({lines}{more})."

    def _move_to_free_name(self) -> Path:
        stem = self.name.removesuffix(_suffix(self.name))
        for number in count(1):
            path = self._target / (self.name if number == 1 else f"{stem}-{number}{_suffix(self.name)}")
            if path.is_file() and filecmp.cmp(path, self._partial, shallow=False):
                self.cancel()
                return path
            try:
                # whoever makes the name has it: another upload may end at the same time
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
            except FileExistsError:  # a link that leads nowhere is the reader's too
                continue
            try:
                self._partial.chmod(0o644)
                return self._partial.replace(path)
            except OSError:
                path.unlink()  # the name that was taken for it
                raise
        raise AssertionError  # a count has no end

    def _upload_error(self, reason: str) -> UploadError:
        return UploadError(f"`{self.name}` was not uploaded: {reason}.")


class UploadReceiver:
    """Receives the uploads of one part of the form, one message per piece.

    Each piece is acknowledged before the page sends the next one, so that no pieces queue up in a busy kernel.

    Args:
        send: sends an acknowledgement to the front end: `{"type": "upload", "id", "received", "done"}`.
        on_end: called with the field, a message, and the new value; empty if the upload failed.
    """

    def __init__(self, send: Callable[[dict[str, Any]], Any], on_end: Callable[[str, Message, str], None]) -> None:
        self._send = send
        self._on_end = on_end
        self._active: dict[str, tuple[Upload, int]] = {}

    def receive(self, content: Mapping[str, Any], buffers: Sequence[Any]) -> None:
        """Handle a message with `id`, `key` (the field), `name`, `total` (bytes) and `offset`."""
        upload_id, key = str(content["id"]), str(content["key"])
        try:
            upload, received = self._add(upload_id, content, buffers)
            if received < content["total"]:
                self._send({"type": "upload", "id": upload_id, "received": received, "done": False})
                return
            done = upload.finish()
        except UploadError as error:
            self._end(upload_id)
            self._on_end(key, Message("warning", str(error)), "")
            return
        self._end(upload_id)
        self._on_end(key, Message("note", done.message), done.name)

    def close(self) -> None:
        """Cancel the uploads in progress."""
        for upload, _ in self._active.values():
            upload.cancel()
        self._active.clear()

    def _add(self, upload_id: str, content: Mapping[str, Any], buffers: Sequence[Any]) -> tuple[Upload, int]:
        """Add a piece; returns the upload and the number of received bytes."""
        if content["offset"] == 0:
            if upload_id in self._active:  # the page begins again
                self._active[upload_id][0].cancel()
            self._active[upload_id] = (Upload(str(content["name"])), 0)
        upload, received = self._active.get(upload_id, (None, 0))
        if upload is None or content["offset"] != received:
            raise UploadError(f"`{content['name']}` was not uploaded: a part of it is missing. Upload it again.")
        for piece in buffers:
            upload.append(bytes(piece))
            received += len(piece)
        self._active[upload_id] = (upload, received)
        return upload, received

    def _end(self, upload_id: str) -> None:
        upload, received = self._active.pop(upload_id, (None, 0))
        if upload is not None:
            upload.cancel()
        self._send({"type": "upload", "id": upload_id, "received": received, "done": True})


def _plain(name: str) -> str:
    """The last path component, without characters that file systems or the list in `dataset` do not allow."""
    last = Path(name.replace("\\", "/")).name.encode("utf-8", "replace").decode()
    cleaned = re.sub(r"[\x00-\x1f\x7f,]|^~", "_", last)
    suffix = _suffix(cleaned)
    stem = cleaned.removesuffix(suffix).encode()[:MAX_NAME_BYTES].decode("utf-8", "ignore")
    return f"{stem}{suffix}"


def _suffix(name: str) -> str:
    """File suffixes, `.jsonl.gz` for `rows.jsonl.gz`."""
    path = Path(name)
    return (Path(path.stem).suffix if path.suffix.lower() in COMPRESSED else "") + path.suffix


def _writable(*folders: Path) -> Path:
    *first, last = folders
    for folder in first:
        if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK):
            return folder
    last.mkdir(parents=True, exist_ok=True)
    return last
