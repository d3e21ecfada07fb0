"""Examples as Arrow files: written row by row, read by mapping them into memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from llf_core.data.cut import learned
from llf_core.data.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

    import numpy as np
    from datasets import Dataset
    from numpy.typing import NDArray

    from llf_core.data.encoder import Example


class ExampleWriter:
    """Writes `input_ids`, `labels` (lists of int32) and `index` (int64) chunk by chunk, and counts beside them."""

    def __init__(self, path: Path) -> None:
        """Opens the file.

        Args:
            path: made or replaced.
        """
        import pyarrow as pa

        self._path = path
        self._counts: list[tuple[int, int]] = []
        self._schema = pa.schema(
            {"input_ids": pa.list_(pa.int32()), "labels": pa.list_(pa.int32()), "index": pa.int64()}
        )
        self._file = path.open("wb")
        self._stream: Any = pa.ipc.new_stream(self._file, self._schema)

    def write(self, examples: Sequence[Example]) -> None:
        """Appends examples."""
        import pyarrow as pa

        columns = {
            "input_ids": [example.ids for example in examples],
            "labels": [example.labels for example in examples],
            "index": [example.index for example in examples],
        }
        self._stream.write_batch(pa.record_batch(columns, schema=self._schema))
        self._counts += [(len(example.ids), learned(example.labels)) for example in examples]

    @property
    def count(self) -> int:
        """How many examples were written."""
        return len(self._counts)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import numpy as np

        self._stream.close()
        self._file.close()
        np.save(self._path.with_suffix(".npy"), np.array(self._counts, dtype=np.int64).reshape(-1, 2))


def open_examples(path: Path) -> tuple[Dataset, NDArray[np.int64]]:
    """The examples of a file, mapped and not copied, and `[example, 2]`: its tokens and how many are learned."""
    import numpy as np
    from datasets import Dataset

    return Dataset.from_file(str(path)), np.load(path.with_suffix(".npy"))


def hold_out(total: int, size: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Chooses the examples to evaluate on, at random by a seed.

    Args:
        total: how many examples there are.
        size: a share below 1 (rounded, at least one example), or their number.
        seed: of the choice.

    Returns:
        The numbers of those to train on and of those to evaluate on, both ascending.

    Raises:
        DataError: nothing would be left to train on.
    """
    import numpy as np

    count = max(1, round(total * size)) if size < 1 else int(size)
    if count >= total:
        raise DataError(f"val_size {size:g} holds out {count} of {total} examples. Leave at least one to train on.")
    order = np.random.default_rng(seed).permutation(total)
    return np.sort(order[count:]), np.sort(order[:count])
