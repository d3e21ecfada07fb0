"""In which order the examples of several data sets are trained on."""

from __future__ import annotations

from itertools import chain, cycle, islice
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

T = TypeVar("T")
DRAWN = 1000
"""Turns that are drawn at a time."""

STOPS: dict[str, Literal["first_exhausted", "all_exhausted", "all_exhausted_without_replacement"]] = {
    "interleave_under": "first_exhausted",
    "interleave_over": "all_exhausted",
    "interleave_once": "all_exhausted_without_replacement",
}


def mixed(sets: NDArray[np.int64], strategy: str, shares: tuple[float, ...], seed: int) -> NDArray[np.int64]:
    """The numbers of the examples in the order of a strategy, by `datasets.interleave_datasets`.

    ```
    sets [0 0 0 1], interleave_under  ->  [0 3]
    sets [0 0 0 1], interleave_over   ->  [0 3 1 3 2 3]
    ```

    Args:
        sets: `[examples]`, the data set of each, ascending.
        strategy: a `mix_strategy`.
        shares: how often each set takes its turn; none means equally, in order.
        seed: of the draw that shares need.

    Returns:
        Numbers of examples, some of them repeated or left out where the strategy says so.
    """
    if strategy == "concat" or not len(sets):
        return np.arange(len(sets))
    import datasets

    numbers = np.unique(sets)
    parts: list[Any] = [datasets.Dataset.from_dict({"place": np.flatnonzero(sets == number)}) for number in numbers]
    # A set of which nothing is left takes no turn; what it would have taken is shared among the others.
    left = [shares[number] for number in numbers] if shares else []
    probabilities = [share / sum(left) for share in left] if sum(left) > 0 else None
    if len(parts) == 1:
        return np.arange(len(sets))
    found = datasets.interleave_datasets(
        parts, probabilities=probabilities, seed=seed, stopping_strategy=STOPS[strategy]
    )
    return np.asarray(found["place"], dtype=np.int64)


def in_turns(
    sets: Sequence[Callable[[], Iterator[T]]], strategy: str, shares: tuple[float, ...], seed: int
) -> Iterator[T]:
    """The examples of several data sets in the order that `mixed` gives, of sets whose length nobody knows.

    Args:
        sets: each begins a data set anew.
        strategy: a `mix_strategy`.
        shares: as `mixed` takes them.
        seed: of the draw that shares need.

    Yields:
        Examples, some of them repeated or left out where the strategy says so.
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
        # Where all take equal turns, a round that has begun is finished.
        if (drawn or number == 0) and stops(every[place].ended for place in places):
            return
        one = every[places[number]]
        if not (one.ended and strategy == "interleave_once"):
            yield one.take()


class _Ahead(Generic[T]):
    """A data set that knows whether it has come to its end, and then begins anew.

    Attributes:
        ended: whether its last example was taken, once at least.
    """

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
        (example,) = self._next
        self._next = list(islice(self._examples, 1))
        self.ended = self.ended or not self._next
        return example


def _turns(count: int, shares: list[float], seed: int) -> Iterator[int]:
    """Who takes the next turn, without end; drawn as `datasets.interleave_datasets` does."""
    if not count:
        return
    if not shares:
        yield from cycle(range(count))
    random = np.random.default_rng(seed)
    while True:
        yield from random.choice(count, size=DRAWN, p=shares).tolist()
