"""Encodes chunks of rows in this process or in worker processes, in order."""

from __future__ import annotations

import multiprocessing
from collections import deque
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from itertools import chain, islice
from typing import TYPE_CHECKING

from llf_core.data.errors import DataError
from llf_core.data.word_cache import CachedTokenizer
from llf_core.launch.cgroup import usable_cpus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

    from llf_core.data.encoder import Encoder, RenderedRows
    from llf_core.data.errors import BadExample
    from llf_core.data.example import Chunk
    from llf_core.data.label_mask import Encoded
    from llf_core.data.records import Record

CHUNK_ROWS, CHUNK_CHARACTERS = 4000, 8_000_000
"""Maximum size of a chunk. Larger chunks reuse more tokenized words; the result must fit into memory."""
QUEUED_CHUNKS = 2
"""Chunks queued for each worker, so that none is idle and memory is bounded."""
SERIAL_CHUNKS = 50
"""Chunks that this process encodes before workers are started, which take seconds to load the tokenizer."""


def chunks_of(records: Iterable[Record], size: int = CHUNK_ROWS) -> Iterator[list[Record]]:
    """Group records into chunks, large enough to share tokenized words and small enough for memory."""
    group: list[Record] = []
    characters = 0
    for record in records:
        group.append(record)
        characters += _size(record.row)
        if len(group) == size or characters >= CHUNK_CHARACTERS:
            yield group
            group, characters = [], 0
    if group:
        yield group


def _size(value: object) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return 1
    return sum(map(_size, value))


def encode_all(encoder: Encoder, records: Iterable[Record], workers: int | None = None) -> Iterator[Chunk]:
    """Encode records chunk by chunk, in order.

    Args:
        workers: maximum number of processes; None or 1 for this process only. There are never more than usable cores.

    Raises:
        DataError: the chat template exceeds its limits, the texts cannot be tokenized, special tokens are to be split
            by a slow tokenizer, or a process ended before it was done.
    """
    groups = chunks_of(records)
    count = min(workers or 1, usable_cpus())
    if count == 1:
        yield from _side_by_side(encoder, groups)
        return
    yield from _side_by_side(encoder, islice(groups, SERIAL_CHUNKS))
    first = next(groups, None)
    if first is None:
        return
    groups = chain([first], groups)
    # A forked child of a process with torch's threads may hang, so the workers start afresh.
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, spawn, _Work.set, (replace(encoder),))
    waiting: deque[Future[Chunk]] = deque()
    try:
        for group in groups:
            waiting.append(pool.submit(_Work.do, group))
            if len(waiting) > count * QUEUED_CHUNKS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise DataError(
            "A process that encodes the data ended before it was done, as where the system ends it for lack of memory. "
            f"Lower preprocessing_num_workers ({workers}), or free memory, and start again."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _side_by_side(encoder: Encoder, groups: Iterable[list[Record]]) -> Iterator[Chunk]:
    """Tokenize a chunk in a second thread while this one renders the next; a fast tokenizer releases the GIL."""
    if isinstance(encoder.library, CachedTokenizer):
        for group in groups:
            yield encoder.encode(group)
        return
    with ThreadPoolExecutor(1, "tokenize") as pool:
        waiting: tuple[Chunk, RenderedRows, Future[list[Encoded | BadExample]]] | None = None
        for group in groups:
            chunk, rendered_rows = encoder.render(group)
            tokens = pool.submit(encoder.tokenize, rendered_rows)
            if waiting is not None:
                yield encoder.finish(waiting[0], waiting[1], waiting[2].result())
            waiting = chunk, rendered_rows, tokens
        if waiting is not None:
            yield encoder.finish(waiting[0], waiting[1], waiting[2].result())


class _Work:
    """State of a worker process: the encoder is sent once, not with every chunk."""

    encode: Callable[[list[Record]], Chunk]

    @classmethod
    def set(cls, encoder: Encoder) -> None:
        cls.encode = encoder.encode

    @classmethod
    def do(cls, group: list[Record]) -> Chunk:
        return cls.encode(group)
