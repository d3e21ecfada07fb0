"""In which order the examples of several data sets are trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
