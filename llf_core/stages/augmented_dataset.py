"""Examples with further columns beside those of the prepared data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from datasets import Dataset


class AugmentedDataset:
    """Map-style data set that adds the result of `extra_columns` to each example of another data set."""

    def __init__(self, examples: Dataset | AugmentedDataset, extra_columns: Callable[[int], dict[str, Any]]) -> None:
        self.examples = examples
        self.extra_columns = extra_columns

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        example: dict[str, Any] = self.examples[index]
        return example | self.extra_columns(index)

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        return [
            example | self.extra_columns(index) for example, index in zip(self._several(indices), indices, strict=True)
        ]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[index] for index in range(len(self)))

    def _several(self, indices: Sequence[int]) -> list[dict[str, object]]:
        examples: list[dict[str, object]] = self.examples.__getitems__(indices)
        return examples
