"""Examples with something beside what the data worker made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from datasets import Dataset


class AugmentedDataset:
    """A map-style data set: another one, each of whose examples is given more.

    Attributes:
        examples: the other one.
        more: what is added to the example of a place.
    """

    def __init__(self, examples: Dataset | AugmentedDataset, more: Callable[[int], dict[str, Any]]) -> None:
        self.examples = examples
        self.more = more

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, place: int) -> dict[str, Any]:
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        example: dict[str, Any] = self.examples[place]
        return example | self.more(place)

    def __getitems__(self, places: Sequence[int]) -> list[dict[str, Any]]:
        """Several at once, as torch's loaders ask for them."""
        return [example | self.more(place) for example, place in zip(self._several(places), places, strict=True)]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[place] for place in range(len(self)))

    def _several(self, places: Sequence[int]) -> list[dict[str, Any]]:
        several: list[dict[str, Any]] = self.examples.__getitems__(places)
        return several
