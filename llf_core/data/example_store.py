"""Stores examples as Arrow files, read by memory mapping.

Prepared data sets are kept under `LLF_HOME/cache/data`, keyed by everything that determines their examples.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shutil
import tempfile
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TextIO
from zipfile import BadZipFile

import numpy as np

from llf_core.data.conversation import ANSWERS, PAIRS, UNPAIRED
from llf_core.data.errors import DataError
from llf_core.runs import home
from llf_core.untrusted import brief

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    import pyarrow as pa
    from datasets import Dataset
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

    from llf_core.config.declaration import DataKind
    from llf_core.data.template_check import Field


COUNT_COLUMNS = ("tokens", "learned", "whole", "learned_cut", "set", "hash")
"""Columns of the counts, one row per example.

In order: tokens; trained tokens; tokens before truncation; trained tokens that truncation removed; number of the data
set; hash that is equal for examples with equal columns, see `content_hash`.
"""
SET_COLUMN, HASH_COLUMN = COUNT_COLUMNS.index("set"), COUNT_COLUMNS.index("hash")

OF_CONTENT = {None, errno.ENOENT, errno.EISDIR}
"""Errors of a file that is cut off, missing or a folder, unlike those of a disk."""
SCALAR_TYPES = {"good": "bool", "seen": "string", "rejected_seen": "string"}
EXTRA_COLUMNS: dict[str, tuple[str, ...]] = {PAIRS: ("rejected_ids", "rejected_labels"), UNPAIRED: ("good",)}


class ExampleWriter:
    """Writes `input_ids`, `labels` (lists of int32), `index` and `number` in chunks, with a table of counts.

    The number of an example is its position in the file, also after selecting, mixing or packing. The counts have the
    columns `COUNT_COLUMNS`.
    """

    def __init__(self, path: Path, kind: DataKind = ANSWERS, *, multimodal: bool = False) -> None:
        """Open the file.

        Args:
            path: file to create or replace.
            kind: pairs and unpaired preferences have further columns.
            multimodal: adds the column `seen`, for pairs also `rejected_seen`.
        """
        import pyarrow as pa

        self._path = path
        seen = ("seen", "rejected_seen") if kind == PAIRS else ("seen",)
        self._more = (*EXTRA_COLUMNS.get(kind, ()), *(seen if multimodal else ()))
        self._counts: list[tuple[int, ...]] = []
        self._totals = [0, 0, 0]
        numbers = pa.list_(pa.int32())
        more = {name: pa.type_for_alias(SCALAR_TYPES[name]) if name in SCALAR_TYPES else numbers for name in self._more}
        self._schema = pa.schema(
            {"input_ids": numbers, "labels": numbers, "index": pa.int64(), "number": pa.int64()} | more
        )
        self._file = path.open("wb")
        self._stream = pa.ipc.new_stream(self._file, self._schema)

    def write(self, examples: Sequence[Example], number: int) -> None:
        """Append examples. Their token arrays are copied as bytes, without a Python integer for each token."""
        import pyarrow as pa

        lists: dict[str, list[array[int]]] = {
            "input_ids": [_array(example.ids) for example in examples],
            "labels": [_array(example.labels) for example in examples],
        }
        more = [name for name in self._more if name not in SCALAR_TYPES]
        lists |= {name: [array("i", (example.more or {})[name]) for example in examples] for name in more}
        columns: dict[str, object] = {name: _lists(values) for name, values in lists.items()}
        columns["index"] = [example.index for example in examples]
        columns["number"] = range(self.count, self.count + len(examples))
        columns |= {
            name: [(example.more or {})[name] for example in examples] for name in self._more if name in SCALAR_TYPES
        }
        self._stream.write_batch(pa.record_batch(columns, schema=self._schema))
        counts = [
            (
                *(_tokens(one), one.learned, _tokens(one) + one.cut, one.cut_learned, number),
                content_hash(ids, labels, one.more),
            )
            for one, ids, labels in zip(examples, lists["input_ids"], lists["labels"], strict=True)
        ]
        self._counts += counts
        sums = (len(counts), sum(one[0] for one in counts), sum(one[1] for one in counts))
        self._totals = [total + more for total, more in zip(self._totals, sums, strict=True)]

    def totals(self) -> tuple[int, ...]:
        """Number of examples, tokens and trained tokens so far; two calls give the counts of a data set."""
        return tuple(self._totals)

    @property
    def count(self) -> int:
        """Number of examples written so far: the number that the next one gets."""
        return len(self._counts)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:

        self._stream.close()
        self._file.close()
        np.save(self._path.with_suffix(".npy"), np.array(self._counts, dtype=np.int64).reshape(-1, len(COUNT_COLUMNS)))


def _tokens(example: Example) -> int:
    return len(example.ids) + len((example.more or {}).get("rejected_ids", ()))


def _array(numbers: Sequence[int]) -> array[int]:
    return numbers if isinstance(numbers, array) else array("i", numbers)


def _lists(values: list[array[int]]) -> pa.ListArray:
    import pyarrow as pa

    ends = np.zeros(len(values) + 1, dtype=np.int32)
    np.cumsum([len(value) for value in values], out=ends[1:])
    items = pa.Array.from_buffers(pa.int32(), int(ends[-1]), [None, pa.py_buffer(b"".join(values))])
    return pa.ListArray.from_arrays(pa.array(ends), items)


def content_hash(ids: array[int], labels: array[int], more: Mapping[str, object] | None = None) -> int:
    """64-bit hash (BLAKE2b, RFC 7693) as a signed integer, equal for examples with equal columns, to find duplicates.

    Args:
        ids: token ids `[seq]`, int32.
        labels: labels `[seq]`, int32.
        more: further columns, hashed in this order and without the names: lists or arrays of 32-bit integers, booleans,
            and text.
    """
    digest = hashlib.blake2b(ids, digest_size=8)
    digest.update(labels)
    for value in (more or {}).values():
        digest.update(_array(value) if isinstance(value, list | array) else str(value).encode())
    return int.from_bytes(digest.digest(), "little", signed=True)


def drop_duplicates(hashes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions `[kept]`, int64, of the first example with each hash (`[examples]`, int64), ascending."""
    return np.sort(np.unique(hashes, return_index=True)[1])


def open_examples(path: Path) -> tuple[Dataset, NDArray[np.int64]]:
    """Open a file of an `ExampleWriter` and its counts without reading it into memory.

    Returns:
        The examples, memory-mapped, and their counts `[examples, columns]`, int64, see `COUNT_COLUMNS`.

    Raises:
        DataError: a file is damaged, for example cut off by a copy of the cache, or missing.
    """
    from datasets import Dataset

    reading = path
    try:
        examples = Dataset.from_file(str(path))
        reading = path.with_suffix(".npy")
        return examples, np.load(reading)
    except (ValueError, EOFError, BadZipFile) as error:
        raise damaged_cache(reading, error) from None
    except OSError as error:
        if error.errno not in OF_CONTENT:
            raise
        raise damaged_cache(reading, error) from None


def damaged_cache(path: Path, error: Exception) -> DataError:
    """The error about a file of prepared data that is not as it was written; says how to prepare the data again."""
    reason = brief(str(error)).rstrip(".")
    return DataError(
        f"{path} is damaged: {reason}. Set `overwrite_cache: true` to prepare the data again, or remove {path.parent}."
    )


def split_validation(hashes: NDArray[np.int64], size: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split off examples for evaluation at random. Copies of an example stay on the same side, so that none leaks.

    Args:
        hashes: `[examples]`, int64, the column `hash` of the counts.
        size: fraction below 1 (rounded, at least one example), or number of examples. A few more are held out if copies
            do not divide evenly.

    Returns:
        Positions of the training examples `[train]` and of the evaluation examples `[eval]`, int64, both ascending.

    Raises:
        DataError: no example would be left to train on.
    """
    total = len(hashes)
    count = max(1, round(total * size)) if size < 1 else int(size)
    # Groups are numbered in the order of their first examples: without copies, examples themselves are drawn.
    _, first, group = np.unique(hashes, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))[group]
    order = np.random.default_rng(seed).permutation(len(first))
    sizes = np.bincount(rank)
    needed = int(np.searchsorted(np.cumsum(sizes[order]), count)) + 1
    held = np.isin(rank, order[:needed])
    if count >= total or held.all():
        raise DataError(
            f"val_size {size:g} holds out {count} of {total} examples. Expected at least one training example."
        )
    return np.flatnonzero(~held), np.flatnonzero(held)


def write_jsonl(examples: Dataset, file: TextIO, **facts: object) -> None:
    """Write examples as JSON lines with `index`, `input_ids` and `labels`."""
    for batch in examples.iter(batch_size=1000):
        for index, ids, labels in zip(batch["index"], batch["input_ids"], batch["labels"], strict=True):
            line = {"index": index, "input_ids": ids, "labels": labels, **facts}
            file.write(json.dumps(line, separators=(",", ":")) + "\n")


def lengths(examples: Dataset, column: str = "input_ids") -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Number of tokens of each example, `[examples]`, int64, from the offsets of a column alone."""
    import pyarrow.compute as pc

    table: np.ndarray[tuple[int], np.dtype[np.int64]] = pc.list_value_length(examples.data.column(column)).to_numpy()
    selected = examples._indices  # noqa: SLF001 - rows of the table; reading a selection itself would copy its tokens
    counted = table if selected is None else table[selected.column(0).to_numpy()]
    return counted.astype(np.int64)


class Example(NamedTuple):
    """A training example.

    Attributes:
        index: index of the record that it comes from.
        ids: token ids `[seq]`.
        labels: labels `[seq]`, -100 where a token does not contribute to the loss.
        cut: number of tokens that `cutoff_len` removed.
        cut_learned: number of those that would contribute to the loss; 0 for a preference pair.
        learned: number of labels that contribute to the loss, see `count_trained`; of a pair in both sequences.
        more: further columns: `rejected_ids` and `rejected_labels` of a preference pair, `good` of an unpaired
            preference, `seen` for a multimodal model (text and media as JSON, empty without media; of a pair also
            `rejected_seen`).
    """

    index: int  # type: ignore[assignment]  # nobody looks a value up in it
    ids: Sequence[int]
    labels: Sequence[int]
    cut: int
    cut_learned: int
    learned: int
    more: Mapping[str, Any] | None = None


@dataclass
class Chunk:
    """Result of encoding some records.

    Attributes:
        dropped: index and reason of every record that gives no example, or not one for each of its responses.
        digests: SHA-256 of each valid record, in order; independent of the file format.
        fields: fields of the conversations beyond role and content, see `fields_of`.
    """

    examples: list[Example] = field(default_factory=list)
    dropped: list[tuple[int, str]] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    rows: int = 0
    fields: set[Field] = field(default_factory=set)


VERSION = 8
"""Version of the cache; increased when the same settings would give other examples."""
DONE_FILE = "report.json"
KEY = re.compile(r"[0-9a-f]{32}")


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 (hexadecimal) of everything that determines how a tokenizer splits text.

    A tokenizer written in Python is identified by the files that it saves.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    core = backend.to_str() if backend is not None else _saved_vocabulary(tokenizer)
    rest = [type(tokenizer).__name__, repr(sorted(tokenizer.special_tokens_map.items()))]
    return hashlib.sha256("\0".join([core, *rest]).encode("utf-8", "backslashreplace")).hexdigest()


def _saved_vocabulary(tokenizer: PreTrainedTokenizerBase) -> str:
    with tempfile.TemporaryDirectory(prefix="llf-tokenizer-") as folder:
        paths = sorted(Path(path) for path in tokenizer.save_vocabulary(folder))
        saved = [(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in paths]
    return json.dumps([tokenizer.get_vocab(), saved], sort_keys=True)


def cache_key(parts: Mapping[str, object]) -> str:
    """Hash everything that determines the examples, and the version of the cache, to 32 hexadecimal digits."""
    text = json.dumps({"version": VERSION, **parts}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def cached_folder(key: str, make: Callable[[Path], None], *, rebuild: bool = False) -> tuple[Path, bool]:
    """Return the folder of a prepared data set, and whether it was cached; build it if it is missing.

    Another process that needs the same folder waits. A folder under its final name is always complete.

    Args:
        make: fills an empty folder; its last file is `report.json`.
        rebuild: build it again even if it is cached.
    """
    from llf_core.runs.files import shared_lock

    if not KEY.fullmatch(key):
        msg = f"{key!r} is not a key of `cache_key`. Expected 32 hexadecimal digits."
        raise ValueError(msg)
    base = home() / "cache" / "data"
    base.mkdir(parents=True, exist_ok=True)
    folder = base / key
    with shared_lock(f"data-{key}", "Another process prepares the same data. Waiting for it."):
        if (folder / DONE_FILE).is_file() and not rebuild:
            return folder, True
        partial = Path(tempfile.mkdtemp(dir=base, prefix=f".{key}-"))
        try:
            make(partial)
            if folder.exists():
                # Processes that have mapped the old files keep them, although their names are gone.
                shutil.rmtree(folder)
            partial.rename(folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    return folder, False
