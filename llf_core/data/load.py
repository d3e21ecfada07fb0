"""Opens data sets: local files, or a hub's copy through its client."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.config.did_you_mean import listed
from llf_core.data.data_file import CloudFile, fetch_file, file_type
from llf_core.data.errors import DataError
from llf_core.data.file_readers import READERS, read_file, record_unit, records_of_batch
from llf_core.data.records import BrokenLine, Record, RecordOrBroken
from llf_core.data.sources import load_hub_dataset
from llf_core.untrusted import read_object

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from datasets import Dataset, IterableDataset

    from llf_core.data.data_file import File
    from llf_core.data.sources import Source


@dataclass(frozen=True)
class OpenedDataset:
    """A data set that is ready to be read: its files, or a hub's `table` as opened by `datasets`."""

    source: Source
    files: tuple[File, ...]
    table: Dataset | IterableDataset | None = None
    streamed: bool = False

    @property
    def unit(self) -> str:
        """Unit in which people count its records, for messages such as `line 8`; see `read_file.record_unit`."""
        return "row" if self.table is not None else record_unit(self.files)

    def identity(self) -> list[object]:
        """Values that determine its examples, for the cache key.

        Content is hashed completely, unless the data set is streamed. Then the path, size and modification time of each
        local file count, or the URL of a cloud's file.
        """
        source = self.source
        how = [source.label, source.formatting, source.columns, source.tags, source.num_samples, source.ranking]
        return [*how, source.split if self.table is not None else None, self._content()]

    def _content(self) -> str:
        digest = hashlib.sha256()
        for path in self.files:
            if self.streamed or not isinstance(path, Path):
                stat = path.stat() if isinstance(path, Path) else None
                facts = f"{path}\0{stat and (stat.st_size, stat.st_mtime_ns)}\n"
                digest.update(facts.encode(errors="surrogateescape"))  # a file's name may be other than UTF-8
                continue
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()


def open_source(source: Source, cache_dir: str | None = None, *, streaming: bool = False) -> OpenedDataset:
    """Find the files of a data set. A hub's or cloud's data set is downloaded, unless it is streamed.

    Raises:
        DataError: a file or folder is missing or has files of several kinds; the hub or cloud does not provide the data
            set; or it cannot be streamed.
    """
    if streaming and source.num_samples:
        raise DataError(
            f"The data set {source.label} is streamed, and its entry draws num_samples {source.num_samples:,} of all "
            "its records. Remove num_samples, or set streaming to false."
        )
    if source.url is not None:
        return OpenedDataset(
            source, (CloudFile(source.url) if streaming else fetch_file(source.url),), streamed=streaming
        )
    if source.path is None:
        table = load_hub_dataset(source, cache_dir, streaming=streaming)
        files: tuple[File, ...] = () if streaming else tuple(Path(file["filename"]) for file in table.cache_files)
        return OpenedDataset(source, files, table, streaming)
    return OpenedDataset(source, tuple(_local_files(source.path)), streamed=streaming)


def _local_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(
            f"{path} is not a file or folder (a pipe or a device). Name a file or a folder."
            if path.exists()
            else f"{path} does not exist."
        )
    state = path / "state.json"
    if state.is_file():  # written by Dataset.save_to_disk
        return _saved_files(path, state)
    files = sorted(file for file in path.iterdir() if file_type(file) in READERS)
    odd = next((file for file in files if not file.is_file()), None)
    if odd is not None:
        raise DataError(f"{odd} is not a file (a folder, a pipe or a broken link). Remove it, or name one file.")
    kinds = sorted({file_type(file) for file in files})
    if not files:
        raise DataError(f"{path} has no data file. Expected files of one type: {', '.join(READERS)}.")
    if len(kinds) > 1:
        raise DataError(f"{path} mixes files of the types {', '.join(kinds)}. Expected one type: name one file.")
    return files


def _saved_files(path: Path, state: Path) -> list[Path]:
    """Files of a data set that `Dataset.save_to_disk` has written; they must be in its own folder."""
    listed = read_object(state).get("_data_files")
    names = [entry.get("filename") for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    files = [path / name for name in names if isinstance(name, str) and "/" not in name]
    if not files or len(files) < len(names) or not all(map(os.path.isfile, files)):
        raise DataError(
            f"{state} names files that are not in its folder. Expected the output of Dataset.save_to_disk. Copy it "
            "again."
        )
    return files


def read_source(opened: OpenedDataset, max_samples: int | None, seed: int) -> Iterator[RecordOrBroken]:
    """Read the records of a data set, numbered across all files, with `num_samples` and `max_samples` applied.

    Args:
        seed: random seed of the sampling by `num_samples`.

    Raises:
        DataError: a file cannot be read, or the data set has no records.
    """
    found = _read_files(opened.files) if opened.table is None else _read_table(opened.table)
    if opened.source.num_samples:
        found = _draw(found, opened.source.num_samples, seed)
    count = 0
    flaws: list[BrokenLine] = []
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
        unit = "row" if opened.table is not None else record_unit(opened.files[:1])
        raise no_records_error(opened.source.label, names, flaws, unit)


def no_records_error(label: str, names: str, flaws: Sequence[BrokenLine] = (), unit: str = "line") -> DataError:
    """Create the error for a data set without records, which are counted in `unit` (see `read_file.record_unit`)."""
    if flaws:
        expected = "" if unit == "row" else " Expected one object per line, or a JSON list of objects."
        return DataError(
            f"No {unit} of {names} can be read; the first of {len(flaws):,} is {unit} {flaws[0].line}: "
            f"{flaws[0].reason}.{expected}"
        )
    return DataError(
        f"The data set {label} is empty: {names} has no records. Add at least one, or use another data set."
    )


def _read_files(files: tuple[File, ...]) -> Iterator[RecordOrBroken]:
    start = 0
    for path in files:
        if isinstance(path, Path) and not path.stat().st_size:  # no list, no header and no footer: no record
            continue
        last = -1
        for entry in read_file(path):
            last = entry.index
            yield replace(entry, index=start + last) if start else entry
        start += last + 1


def _read_table(table: Dataset | IterableDataset) -> Iterator[RecordOrBroken]:
    start = 0
    for batch in table.with_format("arrow").iter(batch_size=1000):
        yield from records_of_batch(batch, start)
        start += batch.num_rows


def _draw(found: Iterator[RecordOrBroken], wanted: int, seed: int) -> Iterator[RecordOrBroken]:
    """Sample `num_samples` records: a permutation, and beyond their number with replacement."""
    import numpy as np

    entries = list(found)
    yield from (entry for entry in entries if isinstance(entry, BrokenLine))
    records = [entry for entry in entries if isinstance(entry, Record)]
    if not records:
        return
    random = np.random.default_rng(seed)
    order = random.permutation(len(records))[:wanted].tolist()
    order += random.integers(len(records), size=wanted - len(order)).tolist()
    yield from (records[place] for place in order)
