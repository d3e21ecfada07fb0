"""Order in which the examples of several data sets are trained on."""

from __future__ import annotations

from itertools import chain, cycle, islice
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

import numpy as np

from llf_core.data.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

T = TypeVar("T")
DRAW_SIZE = 1000

STOPPING_STRATEGIES: dict[str, Literal["first_exhausted", "all_exhausted", "all_exhausted_without_replacement"]] = {
    "interleave_under": "first_exhausted",
    "interleave_over": "all_exhausted",
    "interleave_once": "all_exhausted_without_replacement",
}


def interleave_order(sets: NDArray[np.int64], strategy: str, shares: tuple[float, ...], seed: int) -> NDArray[np.int64]:
    """Order the examples of several data sets by a mixing strategy, as `datasets.interleave_datasets` does.

    ```
    sets [0 0 0 1], interleave_under  ->  [0 3]
    sets [0 0 0 1], interleave_over   ->  [0 3 1 3 2 3]
    ```

    Args:
        sets: `[examples]`, int64, the data set of each example, ascending.
        strategy: a `mix_strategy`.
        shares: sampling probability of each data set, with `interleave_over` and `interleave_once` above 0; empty to
            alternate between them. The share of a data set without examples is divided among the others.

    Returns:
        Positions `[order]` of examples, int64. Some are repeated or left out, depending on the strategy.
    """
    if strategy == "concat" or not len(sets):
        return np.arange(len(sets))
    import datasets

    numbers = np.unique(sets)
    parts = [datasets.Dataset.from_dict({"place": np.flatnonzero(sets == number)}) for number in numbers]
    # Data sets without examples are left out; their probability is divided among the others.
    left = [shares[number] for number in numbers] if shares else []
    probabilities = [share / sum(left) for share in left] if sum(left) > 0 else None
    if len(parts) == 1:
        return np.arange(len(sets))
    found = datasets.interleave_datasets(
        parts, probabilities=probabilities, seed=seed, stopping_strategy=STOPPING_STRATEGIES[strategy]
    )
    return np.asarray(found["place"], dtype=np.int64)


def interleave_streams(
    sets: Sequence[Callable[[], Iterator[T]]], strategy: str, shares: tuple[float, ...], seed: int
) -> Iterator[T]:
    """Interleave streamed data sets of unknown length in the order of `interleave_order`.

    Args:
        sets: for each data set, a function that starts it from the beginning.
    """
    if strategy == "concat":
        yield from chain.from_iterable(begin() for begin in sets)
        return
    every = [_Ahead(begin) for begin in sets]
    places = [place for place, one in enumerate(every) if not one.ended]
    left = [shares[place] for place in places] if shares else []
    drawn = sum(left) > 0
    stops = any if strategy == "interleave_under" else all
    for number in _turns(len(places), [share / sum(left) for share in left] if drawn else [], seed):
        # Without probabilities, a round that has begun is finished.
        if (drawn or number == 0) and stops(every[place].ended for place in places):
            return
        one = every[places[number]]
        if not (one.ended and strategy == "interleave_once"):
            yield one.take()


class _Ahead(Generic[T]):
    """A data set that reads one example ahead to know whether it is exhausted, and then starts again."""

    def __init__(self, begin: Callable[[], Iterator[T]]) -> None:
        self._begin = begin
        self._examples = begin()
        self._next = list(islice(self._examples, 1))
        self.ended = not self._next

    def take(self) -> T:
        """The next example."""
        if not self._next:
            self._examples = self._begin()
            self._next = list(islice(self._examples, 1))
            if not self._next:
                raise DataError(
                    "A data set has no examples any more. Expected its files to stay unchanged while they are read."
                )
        (example,) = self._next
        self._next = list(islice(self._examples, 1))
        self.ended = self.ended or not self._next
        return example


def _turns(count: int, shares: list[float], seed: int) -> Iterator[int]:
    """Endless sequence of data set indices, sampled as `datasets.interleave_datasets` does."""
    if not count:
        return
    if not shares:
        yield from cycle(range(count))
    random = np.random.default_rng(seed)
    while True:
        yield from random.choice(count, size=DRAW_SIZE, p=shares).tolist()
