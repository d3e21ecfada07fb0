"""Streams examples during training, from data sets of any size, in the order of `mix_strategy`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import chain, count, cycle, islice
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import numpy as np

from llf_core.config.rules.conditions import joins_texts, packs_examples
from llf_core.config.rules.data import shares
from llf_core.data.build import encode_all, skip_broken
from llf_core.data.errors import DataError
from llf_core.data.example_store import Chunk
from llf_core.data.load import read_source
from llf_core.data.packing import first_token, pack, stream_blocks
from llf_core.data.report import SetCounts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from llf_core.config import RunConfig
    from llf_core.data.encoder import Encoder
    from llf_core.data.example_store import Example
    from llf_core.data.load import OpenedDataset
    from llf_core.data.report import Broken, DataReport

Row = dict[str, Any]


@dataclass(frozen=True)
class StreamedDataset:
    """A streamed data set, which starts again when it is exhausted."""

    opened: OpenedDataset
    encoder: Encoder


class Stream:
    """An endless stream of examples in an order that depends only on the config, not on the number of processes.

    When the data sets are exhausted, they are read again in a different order.

    Attributes:
        report: report of the records read so far, counted in the first pass.
        capacity: maximum number of tokens of an example or packed row.
    """

    def __init__(self, sets: list[StreamedDataset], config: RunConfig, report: DataReport, skip: int = 0) -> None:
        """Create the stream without its first `skip` examples, which are evaluation data; no record is read yet."""
        self._sets = sets
        self._data = config.data
        self._packs, self._joins = packs_examples(config), joins_texts(config)
        self._seed = config.training.seed
        self._skip = skip
        self._counts = True
        self.report = report
        self.capacity = config.data.cutoff_len
        self._others = report.sets
        self._counted = [SetCounts(one.opened.source.label, 0, 0, 0, 0, unit=one.opened.unit) for one in sets]

    def __iter__(self) -> Iterator[Row]:
        """Rows of the examples: `input_ids`, `labels`, `index`; with packing, `examples`, a list of them."""
        counted, self._counts = self._counts, False
        for time in count():
            random = np.random.default_rng([self._seed, time])
            examples = islice(self.in_order(counted=counted and time == 0), self._skip, None)
            rows = map(to_row, self.cut(shuffle_buffer(examples, self._data.buffer_size, random)))
            first = next(rows, None)
            if first is None:
                raise DataError(
                    f"val_size {self._skip} holds out every example of the data. Expected at least one training "
                    "example."
                )
            every = chain([first], rows)
            yield from self._packed(every, random) if self._packs else every

    def cut(self, examples: Iterable[Example]) -> Iterator[Example]:
        """Join texts and cut them into blocks of `cutoff_len` where the config joins them; else the examples."""
        if not self._joins:
            return iter(examples)
        return stream_blocks(examples, self.capacity, first_token(self._sets[0].encoder.tokenizer))

    def in_order(self, *, counted: bool = False) -> Iterator[Example]:
        """Make one pass over the data sets, mixed by `mix_strategy`, without shuffling.

        Raises:
            DataError: there is no example, or a record is unusable and `stop_on_dropped` is true.
        """
        first = [counted] * len(self._sets)

        def examples(number: int) -> Iterator[Example]:
            counts, first[number] = first[number], False
            return self._examples(number, counted=counts)

        found = interleave_streams(
            [partial(examples, number) for number in range(len(self._sets))],
            self._data.mix_strategy,
            shares(self._data.interleave_probs) or (),
            self._seed,
        )
        example = next(found, None)
        if example is None:
            raise self.report.no_examples_error([one.opened.source.label for one in self._sets])
        yield example
        yield from found

    def _examples(self, number: int, *, counted: bool) -> Iterator[Example]:
        one, data = self._sets[number], self._data
        broken: list[Broken] = []
        records = skip_broken(read_source(one.opened, data.max_samples, self._seed), one.opened.source.label, broken)
        for chunk in encode_all(one.encoder, records, data.preprocessing_num_workers):
            if counted:
                self._count(number, chunk, broken)
            yield from chunk.examples
        if counted:
            self._count(number, Chunk(), broken)

    def _count(self, number: int, chunk: Chunk, broken: list[Broken]) -> None:
        report, before = self.report, self._counted[number]
        report.note(before.dataset, chunk.examples, chunk.dropped)
        report.broken += broken
        tokens, learned = sum(len(one.ids) for one in chunk.examples), sum(one.learned for one in chunk.examples)
        more = (chunk.rows + len(broken), len(chunk.examples), tokens, learned)
        broken.clear()
        _, records, examples, learnable, trained, unit = before
        self._counted[number] = SetCounts(
            before.dataset, records + more[0], examples + more[1], learnable + more[2], trained + more[3], unit
        )
        report.sets = [*self._counted, *self._others]
        report.examples, report.tokens, report.trained_tokens = (
            sum(column) for column in list(zip(*self._counted, strict=True))[2:5]
        )
        report.examples -= min(self._skip, report.examples)
        if self._data.stop_on_dropped:
            report.check_all_used()

    def _packed(self, rows: Iterator[Row], random: np.random.Generator) -> Iterator[Row]:
        while window := list(islice(rows, self._data.buffer_size)):
            packed = pack(np.array([len(row["input_ids"]) for row in window]), self._data.cutoff_len)
            for place in random.permutation(len(packed)):
                yield {"examples": [window[number] for number in packed[place]]}


def shuffle_buffer(examples: Iterable[Example], size: int, random: np.random.Generator) -> Iterator[Example]:
    """Shuffle a stream with a buffer of `size` examples, as `datasets.IterableDataset.shuffle` does."""
    held: list[Example] = []
    for example in examples:
        if len(held) < size:
            held.append(example)
            continue
        place = int(random.integers(size))
        yield held[place]
        held[place] = example
    yield from (held[place] for place in random.permutation(len(held)))


def to_row(example: Example) -> Row:
    """Convert an example to a row for the collator."""
    ids, labels = list(example.ids), list(example.labels)
    return {"input_ids": ids, "labels": labels, "index": example.index, **(example.more or {})}


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
