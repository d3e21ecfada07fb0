"""Best-fit decreasing bin packing in O(n log n), which assigns examples to packed rows."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

BITS = 64  # bits of a word, see `IntegerSet`


class IntegerSet:
    """A set of integers from 0 to `largest`, with a successor query in O(log largest).

    Level 0 has a bit for each number; level k+1 has a bit for each word of level k, set if that word is not 0 (Cormen
    et al., Introduction to Algorithms, 3rd edition, section 20.1). Arguments are not checked.
    """

    def __init__(self, largest: int) -> None:
        """Create an empty set."""
        self._levels: list[list[int]] = []
        size = largest + 1
        while True:
            size = -(-size // BITS)
            self._levels.append([0] * size)
            if size == 1:
                return

    def add(self, number: int) -> None:
        """Add a number."""
        for words in self._levels:
            number, bit = divmod(number, BITS)
            words[number] |= 1 << bit

    def discard(self, number: int) -> None:
        """Remove a number, if it is in the set."""
        for words in self._levels:
            number, bit = divmod(number, BITS)
            words[number] &= ~(1 << bit)
            if words[number]:
                return

    def smallest_from(self, number: int) -> int | None:
        """Find the smallest member that is at least `number`; None if there is none."""
        for level, words in enumerate(self._levels):
            place, bit = divmod(number, BITS)
            if place == len(words):
                return None
            rest = words[place] >> bit
            if rest:
                number += _lowest(rest)
                for lower in reversed(self._levels[:level]):
                    number = number * BITS + _lowest(lower[number])
                return number
            number = place + 1
        return None


def _lowest(word: int) -> int:
    return (word & -word).bit_length() - 1


def pack(lengths: ArrayLike, capacity: int) -> list[list[int]]:
    """Assign each example to a row, so that few rows are needed and none exceeds the capacity.

    Best-fit decreasing (Johnson 1973; for training data arXiv 2404.10830, section 3): from the longest to the shortest,
    each example goes to the row where it leaves the least space, or to a new row. Ties between rows go to the row
    filled last, ties between examples to the first example.

    ```
    lengths [3, 7, 5, 2, 3], capacity 10  ->  [[1, 0], [2, 4, 3]]      7 + 3    5 + 3 + 2
    ```

    Args:
        lengths: `[examples]`, tokens of each, from 1 to `capacity`.

    Returns:
        For each row the positions of its examples, the longest first. The number of rows is at most 11/9 of the optimum
        plus 4 (Johnson et al. 1974, SIAM Journal on Computing 3(4)).
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    if not sizes.size:
        return []
    shortest, longest = int(sizes.min()), int(sizes.max())
    if shortest < 1 or longest > capacity:
        wrong = shortest if shortest < 1 else longest
        raise ValueError(f"An example has {wrong} tokens. Expected 1 to {capacity}, the capacity of a row.")

    capacity = min(capacity, int(sizes.sum()))  # a larger row than all examples needs no larger table
    order = np.argsort(-sizes, kind="stable")
    _, starts = np.unique(-sizes[order], return_index=True)
    rows: list[list[int]] = []
    with_space: defaultdict[int, list[int]] = defaultdict(list)
    spaces = IntegerSet(capacity)
    for run in np.split(order, starts[1:]):
        length, members, placed = int(sizes[run[0]]), run.tolist(), 0
        while placed < len(members):
            space = spaces.smallest_from(length)
            if space is None:
                space, row = capacity, len(rows)
                rows.append([])
            else:
                row = with_space[space].pop()
                if not with_space[space]:
                    spaces.discard(space)
            # As long as the next example of this length fits, this row still has the least space for it.
            count = min(space // length, len(members) - placed)
            rows[row] += members[placed : placed + count]
            placed += count
            left = space - count * length
            if left >= shortest:
                with_space[left].append(row)
                spaces.add(left)
    return rows
