"""Opens a data set that was found: its files, or the copy that the hub's client keeps."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.config.did_you_mean import listed
from llf_core.data.cloud_storage import CloudFile, fetch_file
from llf_core.data.errors import DataError
from llf_core.data.hub import fetch
from llf_core.data.records import READERS, Flaw, Read, Record, kind_of, read_file, records_of_batch, unit_of
from llf_core.door import read_object

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llf_core.data.records import File
    from llf_core.data.source import Source


@dataclass(frozen=True)
class Opened:
    """A data set on this disk.

    Attributes:
        source: what was asked for.
        files: the files that hold it, in order.
        table: a set of a hub as `datasets` opened it (a split may be a part of the files); else None.
        streamed: it is not read as a whole, not even to tell it from another.
    """

    source: Source
    files: tuple[File, ...]
    table: Any = None
    streamed: bool = False

    @property
    def unit(self) -> str:
        """What people call the place of a record, see `records.unit_of`."""
        return "row" if self.table is not None else unit_of(self.files)

    def identity(self) -> list[Any]:
        """What decides which examples it gives: how it is read, and its content wherever it lies."""
        source = self.source
        how = [source.label, source.formatting, source.columns, source.tags, source.num_samples, source.ranking]
        return [*how, source.split if self.table is not None else None, self._content()]

    def _content(self) -> str:
        """SHA-256 over the bytes of the files; of streamed ones, over names, sizes and times."""
        digest = hashlib.sha256()
        for path in self.files:
            if self.streamed or not isinstance(path, Path):
                stat = path.stat() if isinstance(path, Path) else None
                digest.update(f"{path}\0{stat and (stat.st_size, stat.st_mtime_ns)}\n".encode())
                continue
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()


def open_source(source: Source, cache_dir: str | None = None, *, streaming: bool = False) -> Opened:
    """Finds the files of a data set; a set of a hub or a cloud is fetched first, unless it is streamed.

    Args:
        source: from `find_sources`.
        cache_dir: where Hugging Face's client keeps what it fetches; None means its default.
        streaming: read it piece by piece, where it lies.

    Raises:
        DataError: a file or folder that is not there or mixes kinds; a set that the hub or the cloud does not give;
            one that cannot be streamed.
    """
    if streaming and source.num_samples:
        raise DataError(
            f"The data set {source.label} is streamed, and its entry draws num_samples {source.num_samples:,} of all "
            "its records. Take num_samples out, or set streaming to false."
        )
    if source.url is not None:
        return Opened(source, (CloudFile(source.url) if streaming else fetch_file(source.url),), streamed=streaming)
    if source.path is None:
        table = fetch(source, cache_dir, streaming=streaming)
        files: tuple[File, ...] = () if streaming else tuple(Path(file["filename"]) for file in table.cache_files)
        return Opened(source, files, table, streaming)
    return Opened(source, tuple(_local_files(source.path)), streamed=streaming)


def _local_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"{path} does not exist.")
    state = path / "state.json"
    if state.is_file():  # written by Dataset.save_to_disk
        return _saved_files(path, state)
    files = sorted(file for file in path.iterdir() if kind_of(file) in READERS)
    odd = next((file for file in files if not file.is_file()), None)
    if odd is not None:
        raise DataError(f"{odd} is no file (a folder, a pipe, or a link to nothing). Remove it, or name one file.")
    kinds = sorted({kind_of(file) for file in files})
    if not files:
        raise DataError(f"{path} holds no data file. Expected files of one kind: {', '.join(READERS)}.")
    if len(kinds) > 1:
        raise DataError(f"{path} mixes files of kinds {', '.join(kinds)}. Expected one kind: name one file.")
    return files


def _saved_files(path: Path, state: Path) -> list[Path]:
    """The files of a set that `Dataset.save_to_disk` wrote, all of them in its own folder."""
    listed = read_object(state).get("_data_files")
    names = [entry.get("filename") for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    files = [path / name for name in names if isinstance(name, str) and "/" not in name]
    if not files or len(files) < len(names) or not all(map(os.path.isfile, files)):
        raise DataError(
            f"{state} names no files that lie beside it. Expected what Dataset.save_to_disk wrote: copy it again."
        )
    return files


def read_source(opened: Opened, max_samples: int | None, seed: int) -> Iterator[Read]:
    """The records of a data set, `num_samples` and `max_samples` applied.

    Args:
        opened: the data set.
        max_samples: at most the first so many records.
        seed: of the draw that `num_samples` asks for.

    Yields:
        Records, numbered through all files, and the lines that could not be read.

    Raises:
        DataError: a file that cannot be read, or a set without a single record.
    """
    found = _read_files(opened.files) if opened.table is None else _read_table(opened.table)
    if opened.source.num_samples:
        found = _draw(found, opened.source.num_samples, seed)
    count = 0
    flaws: list[Flaw] = []
    for entry in found:
        if isinstance(entry, Record):
            count += 1
        else:
            flaws.append(entry)
        yield entry
        if max_samples is not None and count >= max_samples:
            break
    if not count:
        names = listed(str(file) for file in opened.files)
        if flaws:
            raise DataError(
                f"No line of {names} can be read; the first of {len(flaws):,} is line {flaws[0].line}: "
                f"{flaws[0].reason}. "
                "Expected one object a line, or a JSON list of objects."
            )
        raise no_record(opened.source.label, names)


def no_record(label: str, names: str) -> DataError:
    """The error of a data set without a record.

    Args:
        label: the set, for a person.
        names: its files.
    """
    return DataError(
        f"The data set {label} is empty: there is no record in {names}. Put at least one in, or name another set."
    )


def _read_files(files: tuple[File, ...]) -> Iterator[Read]:
    start = 0
    for path in files:
        last = -1
        for entry in read_file(path):
            last = entry.index
            yield replace(entry, index=start + last) if start else entry
        start += last + 1


def _read_table(table: Any) -> Iterator[Read]:
    start = 0
    for batch in table.with_format("arrow").iter(batch_size=1000):
        yield from records_of_batch(batch, start)
        start += batch.num_rows


def _draw(found: Iterator[Read], wanted: int, seed: int) -> Iterator[Read]:
    """A permutation of the records cut to `num_samples`; beyond their number, more drawn with replacement."""
    import numpy as np

    entries = list(found)
    yield from (entry for entry in entries if isinstance(entry, Flaw))
    records = [entry for entry in entries if isinstance(entry, Record)]
    if not records:
        return
    random = np.random.default_rng(seed)
    order = random.permutation(len(records))[:wanted].tolist()
    order += random.integers(len(records), size=wanted - len(order)).tolist()
    yield from (records[place] for place in order)
