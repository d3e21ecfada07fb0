"""Bin packing: each example once, no row overfull, the same rows as the plain algorithm, near the fewest possible."""

import time
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llf_core.data.packing import IntegerSet, pack

CASES = st.integers(1, 300).flatmap(
    lambda capacity: st.tuples(st.just(capacity), st.lists(st.integers(1, capacity), max_size=60))
)


def naive(lengths, capacity):
    """Best-fit decreasing as it is written down: every open row is looked at for every example."""
    rows = []
    for number in sorted(range(len(lengths)), key=lambda number: (-lengths[number], number)):
        fitting = [row for row in rows if row["left"] >= lengths[number]]
        if fitting:
            least = min(row["left"] for row in fitting)
            row = max((row for row in fitting if row["left"] == least), key=lambda row: row["filled"])
        else:
            row = {"left": capacity, "members": []}
            rows.append(row)
        row["left"] -= lengths[number]
        row["members"].append(number)
        row["filled"] = sum(len(one["members"]) for one in rows)
    return [row["members"] for row in rows]


def fewest(lengths, capacity):
    """The fewest rows possible, by trying every partition."""

    @cache
    def rest(left):
        if not left:
            return 0
        first, others = left[0], left[1:]
        best = len(left)
        for chosen in range(1 << len(others)):
            with_it = [others[place] for place in range(len(others)) if chosen >> place & 1]
            if first + sum(with_it) <= capacity:
                without = tuple(others[place] for place in range(len(others)) if not chosen >> place & 1)
                best = min(best, 1 + rest(without))
        return best

    return rest(tuple(sorted(lengths, reverse=True)))


def test_rows_by_hand():
    # 7 + 3 fills a row; 5 finds none with room, 3 and 2 go beside it.
    assert pack([3, 7, 5, 2, 3], 10) == [[1, 0], [2, 4, 3]]
    # 4 fits beside 5 (1 left) and beside 6 (0 left): best fit takes the second, first fit would take the first.
    assert pack([6, 5, 4], 10) == [[0, 2], [1]]
    assert pack([], 10) == []


@given(CASES)
def test_every_example_is_in_one_row_and_no_row_is_overfull(case):
    capacity, lengths = case
    rows = pack(lengths, capacity)
    assert sorted(number for row in rows for number in row) == list(range(len(lengths)))
    assert all(0 < sum(lengths[number] for number in row) <= capacity for row in rows)
    # No two rows could be one.
    sums = sorted(sum(lengths[number] for number in row) for row in rows)
    assert len(sums) < 2 or sums[0] + sums[1] > capacity


@given(CASES)
def test_the_rows_are_those_of_the_plain_algorithm(case):
    capacity, lengths = case
    assert pack(lengths, capacity) == naive(lengths, capacity)


@given(st.integers(2, 40).flatmap(lambda c: st.tuples(st.just(c), st.lists(st.integers(1, c), max_size=8))))
def test_few_rows_more_than_the_fewest_possible(case):
    # Dósa 2007: 11/9 of the fewest and 6/9 for first-fit decreasing; Johnson 1973: the same ratio for best fit.
    capacity, lengths = case
    assert len(pack(lengths, capacity)) <= 11 / 9 * fewest(lengths, capacity) + 6 / 9


@pytest.mark.parametrize(
    ("lengths", "capacity", "rows"),
    [
        ([1] * 1000, 1000, 1),
        ([1000] * 1000, 1000, 1000),
        ([501] * 1000, 1000, 1000),
        ([500] * 1000, 1000, 500),
        ([334] * 999, 1000, 500),  # two a row
        ([999, 1] * 500, 1000, 500),
        (list(range(1, 1001)), 1000, 501),
    ],
    ids=["ones", "full", "over half", "halves", "thirds and more", "complements", "all"],
)
def test_extreme_lengths(lengths, capacity, rows):
    assert len(pack(lengths, capacity)) == rows


def test_a_row_with_room_for_everything_takes_everything_at_no_cost():
    assert pack([3, 9, 3], 10**15) == [[1, 0, 2]]


def test_lengths_without_room_are_refused():
    with pytest.raises(ValueError, match="has 11 tokens"):
        pack([3, 11], 10)
    with pytest.raises(ValueError, match="has 0 tokens"):
        pack([3, 0], 10)


def test_a_million_examples_take_seconds():
    lengths = np.clip(np.random.default_rng(0).lognormal(5, 1, 1_000_000), 2, 2048).astype(np.int64)
    began = time.process_time()
    rows = pack(lengths, 2048)
    assert time.process_time() - began < 20  # 0.4 s on an idle core
    assert lengths.sum() / (len(rows) * 2048) > 0.999


@given(largest=st.sampled_from([0, 5, 63, 64, 4095, 4096, 300_000]), data=st.data())
def test_a_set_finds_its_smallest_member_from_a_number_on(largest, data):
    spaces, members = IntegerSet(largest), set()
    numbers = st.integers(0, largest)
    for number, taken_out in data.draw(st.lists(st.tuples(numbers, st.booleans()), max_size=40)):
        if taken_out:
            spaces.discard(number)
            members.discard(number)
        else:
            spaces.add(number)
            members.add(number)
        asked = data.draw(numbers)
        assert spaces.smallest_from(asked) == min((one for one in members if one >= asked), default=None)
