"""Examples as Arrow files: written row by row, read by mapping them into memory."""

from __future__ import annotations

import hashlib
import json
from array import array
from typing import TYPE_CHECKING, Any, Self, TextIO

import numpy as np

from llf_core.data.errors import DataError
from llf_core.data.formats.conversation import ANSWERS, JUDGED, PAIRS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from datasets import Dataset
    from numpy.typing import NDArray

    from llf_core.data.encoder import Example

COLUMNS = ("tokens", "learned", "whole", "learned_cut", "set", "twin")
"""Tokens, how many of them are learned, how many there were before it was cut, how many learned ones the cut took, the
number of the data set, a number that is the same for the same tokens learned alike."""
SET, TWIN = COLUMNS.index("set"), COLUMNS.index("twin")


PLAIN = {"good": "bool", "seen": "string"}
"""Types of the columns that are no lists of numbers."""
MORE = {PAIRS: ("rejected_ids", "rejected_labels"), JUDGED: ("good",)}
"""Columns of a kind of examples beside `input_ids`, `labels` and `index`."""


class ExampleWriter:
    """Writes `input_ids`, `labels` (lists of int32), `index` and `number` chunk by chunk, and counts beside them.

    The number of an example is its place in the file, which stays whatever is chosen, mixed or packed later.

    The counts of an example are the columns of `COLUMNS`.
    """

    def __init__(self, path: Path, kind: str = ANSWERS, *, sees: bool = False) -> None:
        """Opens the file.

        Args:
            path: made or replaced.
            kind: what the examples are; those of pairs and of judged answers have further columns.
            sees: they are for a model that takes pictures.
        """
        import pyarrow as pa

        self._path = path
        self._more = (*MORE.get(kind, ()), *(("seen",) if sees else ()))
        self._counts: list[tuple[int, ...]] = []
        self._totals = [0, 0, 0]
        numbers = pa.list_(pa.int32())
        more = {name: pa.type_for_alias(PLAIN[name]) if name in PLAIN else numbers for name in self._more}
        self._schema = pa.schema(
            {"input_ids": numbers, "labels": numbers, "index": pa.int64(), "number": pa.int64()} | more
        )
        self._file = path.open("wb")
        self._stream: Any = pa.ipc.new_stream(self._file, self._schema)

    def write(self, examples: Sequence[Example], number: int) -> None:
        """Appends examples of the data set of a number."""
        import pyarrow as pa

        lists: dict[str, list[array[int]]] = {
            "input_ids": [_array(example.ids) for example in examples],
            "labels": [_array(example.labels) for example in examples],
        }
        more = [name for name in self._more if name not in PLAIN]
        lists |= {name: [array("i", (example.more or {})[name]) for example in examples] for name in more}
        columns: dict[str, Any] = {name: _lists(values) for name, values in lists.items()}
        columns["index"] = [example.index for example in examples]
        columns["number"] = range(self.count, self.count + len(examples))
        columns |= {name: [(example.more or {})[name] for example in examples] for name in self._more if name in PLAIN}
        self._stream.write_batch(pa.record_batch(columns, schema=self._schema))
        counts = [
            (
                *(_tokens(one), one.learned, _tokens(one) + one.cut, one.cut_learned, number),
                twin(ids, labels, one.more),
            )
            for one, ids, labels in zip(examples, lists["input_ids"], lists["labels"], strict=True)
        ]
        self._counts += counts
        sums = (len(counts), sum(one[0] for one in counts), sum(one[1] for one in counts))
        self._totals = [total + more for total, more in zip(self._totals, sums, strict=True)]

    def totals(self) -> tuple[int, ...]:
        """Examples, tokens and learned tokens that were written."""
        return tuple(self._totals)

    @property
    def count(self) -> int:
        """How many examples were written."""
        return len(self._counts)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:

        self._stream.close()
        self._file.close()
        np.save(self._path.with_suffix(".npy"), np.array(self._counts, dtype=np.int64).reshape(-1, len(COLUMNS)))


def _tokens(example: Example) -> int:
    """Tokens of an example; of a pair, those of both sequences."""
    return len(example.ids) + len((example.more or {}).get("rejected_ids", ()))


def _array(numbers: Sequence[int]) -> array[int]:
    return numbers if isinstance(numbers, array) else array("i", numbers)


def _lists(values: list[array[int]]) -> Any:
    """A column of lists, made of their bytes as they are."""
    import pyarrow as pa

    ends = np.zeros(len(values) + 1, dtype=np.int32)
    np.cumsum([len(value) for value in values], out=ends[1:])
    items = pa.Array.from_buffers(pa.int32(), int(ends[-1]), [None, pa.py_buffer(b"".join(values))])
    return pa.ListArray.from_arrays(pa.array(ends), items)


def twin(ids: array[int], labels: array[int], more: Mapping[str, Any] | None = None) -> int:
    """A number of 64 bits that is the same for the same tokens learned alike, of the same pictures (BLAKE2).

    Args:
        ids: `[seq]`.
        labels: `[seq]`.
        more: further columns of the example, which are then the same too.
    """
    digest = hashlib.blake2b(ids, digest_size=8)
    digest.update(labels)
    for value in (more or {}).values():
        digest.update(_array(value) if isinstance(value, list | array) else str(value).encode())
    return int.from_bytes(digest.digest(), "little", signed=True)


def without_copies(twins: NDArray[np.int64]) -> NDArray[np.int64]:
    """The numbers of the examples without those that repeat an earlier one.

    Args:
        twins: `[examples]`, the column `twin`.
    """
    return np.sort(np.unique(twins, return_index=True)[1])


def open_examples(path: Path) -> tuple[Dataset, NDArray[np.int64]]:
    """The examples of a file, mapped and not copied, and `[example, column]`: what `COLUMNS` says of each."""
    from datasets import Dataset

    return Dataset.from_file(str(path)), np.load(path.with_suffix(".npy"))


def hold_out(twins: NDArray[np.int64], size: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Chooses the examples to evaluate on, at random by a seed; copies of one another stay on one side.

    Args:
        twins: `[examples]`, the column `twin`.
        size: a share below 1 (rounded, at least one example), or their number. Where copies do not come out even,
            a few more are held out.
        seed: of the choice.

    Returns:
        The numbers of those to train on and of those to evaluate on, both ascending.

    Raises:
        DataError: nothing would be left to train on.
    """
    total = len(twins)
    count = max(1, round(total * size)) if size < 1 else int(size)
    # Groups are numbered by their first examples, so that without copies the draw is one of examples.
    _, first, group = np.unique(twins, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))[group]
    order = np.random.default_rng(seed).permutation(len(first))
    sizes = np.bincount(rank)
    needed = int(np.searchsorted(np.cumsum(sizes[order]), count)) + 1
    held = np.isin(rank, order[:needed])
    if count >= total or held.all():
        raise DataError(f"val_size {size:g} holds out {count} of {total} examples. Leave at least one to train on.")
    return np.flatnonzero(~held), np.flatnonzero(held)


def write_lines(examples: Dataset, file: TextIO, **facts: Any) -> None:
    """Writes examples as JSON lines.

    Args:
        examples: `index`, `input_ids`, `labels`.
        file: open for text.
        facts: further keys of each line.
    """
    for batch in examples.iter(batch_size=1000):
        for index, ids, labels in zip(batch["index"], batch["input_ids"], batch["labels"], strict=True):
            line = {"index": index, "input_ids": ids, "labels": labels, **facts}
            file.write(json.dumps(line, separators=(",", ":")) + "\n")


def lengths(examples: Dataset, column: str = "input_ids") -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Tokens of each example of the table (of those that are held out too), without reading them."""
    import pyarrow.compute as pc

    counted: np.ndarray[tuple[int], np.dtype[np.int64]] = pc.list_value_length(examples.data.column(column)).to_numpy()
    return counted.astype(np.int64)
