"""A data file that comes from the reader's computer, piece by piece, to a place where the run finds it."""

from __future__ import annotations

import filecmp
import os
import re
import tempfile
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.config.paths import COMPRESSED
from llf_core.data.errors import DataError
from llf_core.data.records import READERS, Flaw, LongFileError, beginning, counted_rows, kind_of, read_file
from llf_core.runs import home
from llf_core.runs.uploads import UPLOADS
from llf_core.user_error import UserError
from llf_widgets.forms.messages import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

COUNTED = 50_000_000
"""Bytes, unpacked, that are read of a file to count its rows."""
WHOLE = 200_000_000
"""The same of JSON, which is read as a whole."""
FIRST = 100
"""Rows that are read of a file that tells how many it has."""
NAMED = 3
LONGEST = 180
"""Bytes of a name without its suffix: of 255 that a disk takes, and a number may come behind it."""
_SUFFIXES = ", ".join(f".{kind}" for kind in READERS)


class UploadError(UserError, ValueError):
    """A file that was not taken."""


@dataclass(frozen=True)
class Uploaded:
    """A file that was taken.

    Attributes:
        name: what `dataset` holds from now on.
        told: where it lies, and what was read of it.
    """

    name: str
    told: str


class Upload:
    """A file on its way.

    Args:
        name: as it is called on the reader's computer.
        here: the folder that it goes to; where it can't be written, `LLF_HOME/uploads` takes it.

    Raises:
        UploadError: no data file by its name, or nowhere to write it.
    """

    def __init__(self, name: str, here: Path | None = None) -> None:
        self.name = _plain(name)
        if kind_of(Path(self.name)) not in READERS:
            raise UploadError(f"`{self.name}` was not uploaded: it is not a data file. Expected one of {_SUFFIXES}.")
        self._here = (here or Path.cwd()).absolute()
        try:
            self._folder = _writable(self._here, home() / UPLOADS)
            handle, partial = tempfile.mkstemp(prefix=".llf-upload-", suffix=_suffix(self.name), dir=self._folder)
        except OSError as error:
            raise self._refused(f"it cannot be written ({error.strerror})") from None
        os.close(handle)
        self._partial = Path(partial)

    def add(self, piece: bytes) -> None:
        """Takes the next piece.

        Raises:
            UploadError: it cannot be written; what was written is gone.
        """
        try:
            with self._partial.open("ab") as file:
                file.write(piece)
        except OSError as error:
            self.drop()
            raise self._refused(f"it cannot be written ({error.strerror})") from None

    def finish(self) -> Uploaded:
        """Looks at the whole file and gives it its name; a file of this name with other bytes stays as it is.

        Raises:
            UploadError: it cannot be read; the file is gone.
        """
        try:
            rows = self._rows()
        except (DataError, OSError) as error:
            self.drop()
            raise self._refused(str(error).replace(str(self._partial), "it").rstrip(".")) from None
        path = self._place()
        beside = path.parent == self._here
        where = (
            "the folder of the notebook"
            if beside
            else f"`{path.parent}`, since the folder of the notebook is read-only"
        )
        return Uploaded(path.name if beside else str(path), f"Saved as `{path.name}` in {where}: {rows}")

    def drop(self) -> None:
        """Gives the file up."""
        self._partial.unlink(missing_ok=True)

    def _rows(self) -> str:
        """How many rows there are, and which lines cannot be read.

        Raises:
            DataError: the file cannot be read, or has no row.
        """
        known, kind = counted_rows(self._partial), kind_of(self._partial)
        most = WHOLE if kind == "json" else COUNTED
        rows, flaws, whole = 0, [], True
        try:
            for entry in islice(read_file(beginning(self._partial, most)), None if known is None else FIRST):
                if isinstance(entry, Flaw):
                    flaws.append(entry)
                else:
                    rows += 1
        except LongFileError:
            whole = False
            if not rows:
                size = f"larger than {most / 1e6:,.0f} MB unpacked"
                if kind == "json":
                    raise DataError(
                        f"it is {size}, and a JSON file is loaded into memory as a whole. Expected one object per "
                        "line (.jsonl)."
                    ) from None
                raise DataError(f"its first row is {size}. Expected shorter rows.") from None
        rows = rows if known is None else known
        if not rows:
            raise DataError(f"it has no rows{f' (line {flaws[0].line}: {flaws[0].reason})' if flaws else ''}.")
        told = f"{rows:,} {'row' if rows == 1 else 'rows'}." if whole else f"more than {rows:,} rows."
        if not flaws:
            return told
        lines = "; ".join(f"line {flaw.line}: {flaw.reason}" for flaw in flaws[:NAMED])
        more = f"; {len(flaws) - NAMED:,} more" if len(flaws) > NAMED else ""
        return f"{told} {len(flaws):,} cannot be read and {'is' if len(flaws) == 1 else 'are'} skipped ({lines}{more})."

    def _place(self) -> Path:
        """Moves the file to a name that no other file has."""
        stem = self.name.removesuffix(_suffix(self.name))
        for number in count(1):
            path = self._folder / (self.name if number == 1 else f"{stem}-{number}{_suffix(self.name)}")
            if path.is_file() and filecmp.cmp(path, self._partial, shallow=False):
                self.drop()
                return path
            try:
                # whoever makes the name has it: another upload may end at the same time
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
            except FileExistsError:  # a link that leads nowhere is the reader's too
                continue
            self._partial.chmod(0o644)
            return self._partial.replace(path)
        raise AssertionError  # a count has no end

    def _refused(self, reason: str) -> UploadError:
        return UploadError(f"`{self.name}` was not uploaded: {reason}.")


class Uploads:
    """Files on their way to one part of the form, a message a piece; each piece is answered, so that none piles up.

    Args:
        send: sends an answer to the front end: `{"type": "upload", "id", "received", "done"}`.
        on_end: called with the field, what to say beside it, and what it holds from now on; an empty name where the
            file was not taken.
    """

    def __init__(self, send: Callable[[dict[str, Any]], Any], on_end: Callable[[str, Message, str], None]) -> None:
        self._send = send
        self._on_end = on_end
        self._coming: dict[str, tuple[Upload, int]] = {}

    def take(self, content: Mapping[str, Any], buffers: Sequence[Any]) -> None:
        """Takes a message: `id`, `key` (the field), `name`, `total` (bytes), `offset`; the piece is its buffer."""
        mark, key = str(content["id"]), str(content["key"])
        try:
            upload, received = self._add(mark, content, buffers)
            if received < content["total"]:
                self._send({"type": "upload", "id": mark, "received": received, "done": False})
                return
            done = upload.finish()
        except UploadError as error:
            self._end(mark)
            self._on_end(key, Message("warning", str(error)), "")
            return
        self._end(mark)
        self._on_end(key, Message("note", done.told), done.name)

    def _add(self, mark: str, content: Mapping[str, Any], buffers: Sequence[Any]) -> tuple[Upload, int]:
        """The file of a message, and how many bytes of it are here.

        Raises:
            UploadError: it cannot be written, or a piece is missing.
        """
        if content["offset"] == 0:
            self._coming[mark] = (Upload(str(content["name"])), 0)
        upload, received = self._coming.get(mark, (None, 0))
        if upload is None or content["offset"] != received:
            raise UploadError(f"`{content['name']}` was not uploaded: a part of it is missing. Upload it again.")
        for piece in buffers:
            upload.add(bytes(piece))
            received += len(piece)
        self._coming[mark] = (upload, received)
        return upload, received

    def _end(self, mark: str) -> None:
        upload, received = self._coming.pop(mark, (None, 0))
        if upload is not None:
            upload.drop()
        self._send({"type": "upload", "id": mark, "received": received, "done": True})


def _plain(name: str) -> str:
    """The last part of a name as every disk takes it, and `dataset`, where a comma stands between two."""
    last = Path(name.replace("\\", "/")).name.encode("utf-8", "replace").decode()
    told = re.sub(r"[\x00-\x1f\x7f,]|^~", "_", last)
    suffix = _suffix(told)
    stem = told.removesuffix(suffix).encode()[:LONGEST].decode("utf-8", "ignore")
    return f"{stem}{suffix}"


def _suffix(name: str) -> str:
    """`.jsonl.gz` of `rows.jsonl.gz`."""
    path = Path(name)
    return (Path(path.stem).suffix if path.suffix.lower() in COMPRESSED else "") + path.suffix


def _writable(*folders: Path) -> Path:
    """The first folder that can be written.

    Raises:
        OSError: none.
    """
    *first, last = folders
    for folder in first:
        if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK):
            return folder
    last.mkdir(parents=True, exist_ok=True)
    return last
