"""Estimates the lengths of examples from the text of their records, without a tokenizer."""

from __future__ import annotations

import functools
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from llf_core.config import RunConfig
from llf_core.config.paths import expanded
from llf_core.config.rules.conditions import joins_texts
from llf_core.data.align import decide, wanted_kind
from llf_core.data.conversation import cell_of
from llf_core.data.data_file import LongFileError, file_type, limit_file
from llf_core.data.errors import BadExample, DataError
from llf_core.data.file_readers import read_file, row_count
from llf_core.data.load import open_source
from llf_core.data.media import KINDS, PLACEHOLDER
from llf_core.data.media_files import Header, read_header, reads
from llf_core.data.media_tokens import media_tokens
from llf_core.data.packing import group_ends
from llf_core.data.records import Record
from llf_core.data.sources import media_dir, sources_of
from llf_core.estimate import check_fit
from llf_core.estimate.devices import cards_of_place
from llf_core.estimate.example_lengths import ExampleLengths, of_lengths
from llf_core.estimate.past_runs import known_lengths

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from llf_core.config.declaration import DataKind
    from llf_core.data.align import Reading
    from llf_core.data.conversation import Conversation
    from llf_core.data.records import Row
    from llf_core.data.sources import Source
    from llf_core.estimate import FitCheck


BYTES_PER_TOKEN = 4.3
"""Bytes of UTF-8 per token of a usual tokenizer, in English; other scripts have more bytes a letter."""
TOKENS_PER_MESSAGE = 5
TOKENS_PER_CONVERSATION = 20
"""Tokens of the system prompt that many templates add to a conversation without one."""
MOST_RECORDS = 2000
MOST_BYTES = 4_000_000
"""Maximum bytes or records to read of a file; the number of further records follows from its size."""
DECIDED_ROWS = 100
MOST_HEADERS = {"image": 100, "video": 20, "audio": 20}
"""Maximum number of headers to read of each kind; a video's takes milliseconds."""
PLURAL = {"image": "images", "video": "videos", "audio": "audio clips"}
SINGULAR = {"image": "An image", "video": "A video", "audio": "An audio clip"}


@dataclass(frozen=True)
class _Texts:
    """Lengths of some of a data set's conversations.

    Attributes:
        media: of each sequence, the paths of its media by kind; empty for one that is not a file.
        total: number of records that the files have, estimated if they were not read to their end.
    """

    tokens: tuple[int, ...]
    media: tuple[Mapping[str, tuple[str, ...]], ...]
    records: int
    total: float
    whole: bool


def lengths_from_text(config: RunConfig) -> ExampleLengths | None:
    """Estimate the lengths before truncation of a config's training examples from the text of its first records.

    At most 4 MB of each file are read, and read again only when it has changed. Nothing is downloaded except
    `dataset_info.json`, if `dataset_dir` is a repository of the hub. The number of tokens is a rule of thumb for
    English (`BYTES_PER_TOKEN` and the constants below it), so it can be far off for another script. None if no data set
    can be read.
    """
    found: list[_Texts] = []
    names = config.data.dataset or ()
    for name in names:
        try:
            (source,) = sources_of(config, (name,))
            texts = _of_source(source, wanted_kind(config))
        except (DataError, ValueError):  # reported by the checks of names and data
            continue
        if texts is not None and texts.tokens:
            found.append(texts)
    if not found:
        return None
    tokens = np.concatenate([np.array(one.tokens, np.int64) for one in found])
    shown, patches, about = _of_media(config, [media for one in found for media in one.media])
    tokens += shown
    seen = patches * np.minimum(1.0, config.data.cutoff_len / tokens)  # longer examples with media are dropped
    total = sum(_drawn(one, config) for one in found)
    read = sum(one.records for one in found)
    which = f"all {read:,} records" if all(one.whole for one in found) else f"the first {read:,} records"
    missing = "" if len(found) == len(names) else " of the data sets that are on this machine"
    basis = f"Lengths of the examples are estimated from the text of {which}{missing}.{about}"
    examples = max(1, round(total) - _held_out(config, round(total)))
    if joins_texts(config):
        size = config.data.cutoff_len
        each = np.diff(group_ends(examples, config.data.preprocessing_num_workers), prepend=0) * tokens.mean() / size
        blocks = max(1, round(np.maximum(0, each - 0.5).sum()))  # half of a block is left out of each group on average
        return of_lengths(np.array([size]), blocks, basis=basis, exact=False)
    return of_lengths(tokens, examples, basis=basis, exact=False, patches=round(seen.max()))


def _held_out(config: RunConfig, examples: int) -> int:
    """Number of examples that `val_size` holds out for evaluation, as in `example_store.split_validation`."""
    size = config.data.val_size
    return 0 if not size else max(1, round(examples * size)) if size < 1 else int(size)


def most_patches(config: RunConfig) -> int:
    """Largest number of patches of the images and videos of an example, as positions of an encoder; 0 for text."""
    found = lengths_from_text(config)
    return 0 if found is None else found.patches


def _drawn(texts: _Texts, config: RunConfig) -> float:
    most = config.data.max_samples
    return texts.total if most is None else min(texts.total, most)


def _of_source(source: Source, kind: DataKind) -> _Texts | None:
    if source.path is None:
        return None
    files = [file for file in open_source(source).files if isinstance(file, Path)]
    try:
        stats = [(file, file.stat()) for file in files]
    except OSError:
        return None
    state = tuple((file, stat.st_mtime_ns, stat.st_size) for file, stat in stats if stat.st_size)  # others hold nothing
    return _read(source, kind, state) if state else None


@functools.lru_cache(maxsize=32)
def _read(source: Source, kind: DataKind, state: tuple[tuple[Path, int, int], ...]) -> _Texts:
    """Cached until a file changes."""
    rows: list[Row] = []
    read = held = 0
    whole = True
    for file, _, size in state:
        held += size
        if len(rows) >= MOST_RECORDS:
            whole = False
            continue
        before = len(rows)
        rows.extend(_rows(file, MOST_RECORDS - len(rows)))
        counted = _count(file)
        complete = len(rows) - before == counted if counted else len(rows) < MOST_RECORDS and size <= MOST_BYTES
        whole = whole and complete
        read += size if complete else _bytes(rows[before:])
    if not rows:
        return _Texts((), (), 0, 0, whole)
    reading = decide(source, tuple(rows[:DECIDED_ROWS]), kind)
    lengths = [(row, length) for row in rows for length in _lengths(reading, row)]
    tokens, media = tuple(length for _, length in lengths), tuple(_media(row, reading.columns) for row, _ in lengths)
    counts = [_count(file) for file, _, _ in state]
    if all(counts):
        total = float(sum(count or 0 for count in counts))
    else:
        total = len(rows) if whole else len(rows) * held / max(1, read)
    total = source.num_samples or total
    return _Texts(tokens, media, len(rows), total, whole)


def _rows(file: Path, most: int) -> list[Row]:
    found: list[Row] = []
    with suppress(LongFileError, OSError):
        if file_type(file) == "json" and file.stat().st_size > MOST_BYTES:
            return found  # it must be read whole
        for entry in read_file(limit_file(file, MOST_BYTES)):
            if isinstance(entry, Record):
                found.append(entry.row)
            if len(found) >= most:
                break
    return found


def _count(file: Path) -> int | None:
    try:
        return row_count(file)
    except (DataError, OSError):
        return None


def _bytes(rows: list[Row]) -> int:
    """Approximate size of the rows in a file of JSON lines."""
    return sum(len(str(row).encode("utf-8", "replace")) for row in rows)


def _lengths(reading: Reading, row: Row) -> list[int]:
    """Tokens of the sequences that a record gives: one, or two of a preference pair; none if it cannot be used."""
    try:
        found = reading.align(row)
    except BadExample:
        return []
    placed = any(column in reading.columns for column in KINDS)  # the signs of media are no text then
    shared = sum(_tokens(PLACEHOLDER.sub("", text) if placed else text) for text in _texts(found))
    if found.messages[0]["role"] not in {"system", "text"}:
        shared += TOKENS_PER_CONVERSATION
    if found.rejected is None:
        return [shared]
    last = _tokens(str(found.messages[-1].get("content")))
    return [shared, shared - last + _tokens(str(found.rejected.get("content")))]


def _media(row: Row, columns: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Paths of the media of a record by kind; an empty text for one that is stored in the record."""
    found = {}
    for column, kind in KINDS.items():
        given = cell_of(row, columns, column)
        listed = given if isinstance(given, list | tuple) else [] if given in (None, "") else [given]
        paths = ((one.get("path") if isinstance(one, dict) and not one.get("bytes") else one) for one in listed)
        found[kind] = tuple(one if isinstance(one, str) and not one.startswith("data:") else "" for one in paths)
    return {kind: paths for kind, paths in found.items() if paths}


def _of_media(
    config: RunConfig, media: list[Mapping[str, tuple[str, ...]]]
) -> tuple[NDArray[np.int64], NDArray[np.int64], str]:
    """Tokens and patches of the media of each sequence, and sentences about them."""
    tokens, patches = np.zeros(len(media), np.int64), np.zeros(len(media), np.int64)
    kinds = [kind for kind in KINDS.values() if any(kind in one for one in media)]
    counter = media_tokens(config) if kinds else None
    if counter is not None and not counter.entry:  # a model of text, which is trained on the texts alone
        return tokens, patches, ""
    about = ""
    for kind in kinds:
        paths = [one.get(kind, ()) for one in media]
        if counter is None:
            about += _not_counted(kind, "the files of the model are not on this machine")
        elif not counter.takes(kind):
            about += _not_counted(kind, f"{counter.processor or 'the model'} is not known to take them")
        else:
            headers, why = _headers(config, kind, paths)
            counts = [count for one in headers if (count := counter.count(kind, one)) is not None]
            if not counts:
                about += _not_counted(kind, why or "the settings of the model do not tell their number")
                continue
            tokens += _summed([one.tokens for one in counts], paths)
            patches += _summed([one.positions for one in counts], paths)
            least, most = min(one.tokens for one in counts), max(one.tokens for one in counts)
            many = f"{least:,}" if least == most else f"{least:,} to {most:,}"
            about += f" {SINGULAR[kind]} counts {'' if counter.processor else 'about '}{many} tokens."
    return tokens, patches, about


def _headers(config: RunConfig, kind: str, paths: list[tuple[str, ...]]) -> tuple[list[Header], str]:
    """Headers of the first files of a kind, and why there are none.

    Images that cannot be read count as the largest ones that the processor gets.
    """
    folder = media_dir(config)
    named = [path for one in paths for path in one if path][: MOST_HEADERS[kind]]
    found = [header for path in named if (header := read_header(kind, folder / expanded(path))) is not None]
    if found or kind != "image":
        why = "none of their files can be read" if reads(kind) else "their lengths are read by PyAV: pip install av"
        return found, why
    side = round(config.data.image_max_pixels**0.5)
    return [Header(side, side)], ""


def _not_counted(kind: str, why: str) -> str:
    return f" The tokens of {PLURAL[kind]} are not counted: {why}."


def _summed(counts: list[int], paths: list[tuple[str, ...]]) -> NDArray[np.int64]:
    """Sum over the media of each sequence; counted media stand for the others in turn."""
    places = np.cumsum([0, *map(len, paths)])
    each = np.array(counts, np.int64)[np.arange(places[-1]) % len(counts)]
    found: NDArray[np.int64] = np.diff(np.concatenate([[0], np.cumsum(each)])[places])
    return found


def _texts(conversation: Conversation) -> list[str]:
    told = [str(message.get("content")) for message in conversation.messages]
    return [*told, *(str(tool) for tool in conversation.tools or ())]


def _tokens(text: str) -> int:
    return round(len(text.encode("utf-8", "replace")) / BYTES_PER_TOKEN) + TOKENS_PER_MESSAGE


def estimate(config: object, on: str | None = None) -> FitCheck:
    """Forecast memory, disk, time and speed of a run before it starts, without loading the model or torch.

    Args:
        config: a `RunConfig`, a dict, YAML text, or the path of a YAML or JSON file. Its data set is a name or a file,
            not rows.
        on: cards that this machine need not have, such as `8 x H100 80GB`, each with a process; None for this machine.

    Returns:
        The forecast: `.fits`, `.memory` (bytes by part), `.rooms` (devices), `.disk` (bytes), `.duration`, `.changes`
        that make it fit. What is unknown is None. `print(found.text())` shows it.

    Raises:
        ConfigError: the config has errors.
        ModelSizeError: a file of the model has a size that no model has.
    """
    loaded = config if isinstance(config, RunConfig) else RunConfig.load(config)
    lengths = known_lengths(loaded) or lengths_from_text(loaded)
    if on is None:
        return check_fit(loaded, lengths)
    cards = cards_of_place(on)
    return check_fit(loaded.replace(num_processes=cards.count, num_nodes=1, use_cpu=False), lengths, (cards,))
