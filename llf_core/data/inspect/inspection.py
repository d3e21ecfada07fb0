"""Inspects a prepared data set page by page."""

from __future__ import annotations

import time
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from llf_core.data.align import PEEK_ROWS, decide, formats, roles, wanted_kind
from llf_core.data.build import Builder, EncodingSettings, ProgressReporter, skip_broken
from llf_core.data.errors import BadExample, DataError
from llf_core.data.example_store import HASH_COLUMN, SET_COLUMN
from llf_core.data.inspect.explain_example import (
    collapse_media,
    tokens_by_turn,
    tokens_without_turns,
    untruncated_examples,
)
from llf_core.data.inspect.notable_records import (
    Notable,
    candidate_cutoffs,
    cost,
    duplicates,
    from_report,
    histogram,
    leaks,
    longest,
    page,
)
from llf_core.data.load import open_source, read_source
from llf_core.data.media import media_token_ids
from llf_core.data.packing import PackedRows
from llf_core.data.preparation import peeked_records, prepare
from llf_core.data.records import Record
from llf_core.data.report import decode_row
from llf_core.data.sources import media_dir, sources_of
from llf_core.runs import RunReader, home, list_runs, open_run
from llf_core.runs.config_file import run_config

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from datasets import Dataset
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase, ProcessorMixin

    from llf_core.config import RunConfig
    from llf_core.data.encoder import Encoder
    from llf_core.data.inspect.explain_example import ShownTurn, UntruncatedExample
    from llf_core.data.preparation import Prepared
    from llf_core.data.sources import Source

PART = 500  # examples decoded at once in a search
SEARCH_SECONDS = 1.0


class Inspection:
    """A view of a config's data as the loss sees it.

    Examples are numbered: training examples in their order, then evaluation examples.

    Args:
        speed: tokens per second of an earlier run of the same model, to estimate the time of an epoch.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what was prepared, and by what
        self,
        config: RunConfig,
        tokenizer: PreTrainedTokenizerBase,
        prepared: Prepared,
        seconds: float = 0.0,
        speed: float | None = None,
        processor: ProcessorMixin | None = None,
    ) -> None:
        self._config = config
        self._tokenizer = tokenizer
        self._prepared = prepared
        self._seconds = seconds
        self._speed = speed
        self._processor = processor
        self._sets = [counts.dataset for counts in prepared.report.sets]
        self._encoders: dict[str, Encoder] = {}

    @classmethod
    def open(
        cls,
        config: RunConfig,
        tokenizer: PreTrainedTokenizerBase,
        progress: Callable[[str, int], None] | None = None,
        processor: ProcessorMixin | None = None,
    ) -> Inspection:
        """Prepare the data of a config (the first `buffer_size` records, if streamed), or open it from the cache."""
        began = time.monotonic()
        prepared = prepare(config, tokenizer, progress=progress, peek=True, processor=processor)
        return cls(config, tokenizer, prepared, time.monotonic() - began, earlier_speed(config), processor)

    def overview(self) -> dict[str, object]:
        """Counts in total and of each data set, and the template.

        Returns:
            The numbers of training examples (`examples`), of evaluation examples (`held_out`), of `truncated` examples
            and of unusable records (`dropped`); `tokens` and `trained_tokens` of the training examples; `packed_rows`,
            their `row_capacity` in tokens and `packing_fill`, a fraction; `cutoff` in tokens; `template`, its
            `template_warnings` and `template_notes`; `rename_fields` of the config, and suggested `renames` of fields
            that the template does not render; `streamed`, the maximum number of records read of each streamed data set,
            else 0; `copies`, a warning about duplicates or None; `seconds` of the preparation, and whether it was
            `cached`; and for each of the `sets` its counts, with `cut`, `dropped` and `reading`.
        """
        report = self._prepared.report
        return {
            "examples": report.examples,
            "held_out": report.eval_examples,
            "tokens": report.tokens,
            "trained_tokens": report.trained_tokens,
            "truncated": len(report.truncated),
            "dropped": len(report.unusable()),
            "sets": [
                counts._asdict()
                | {
                    "cut": sum(one.dataset == counts.dataset for one in report.truncated),
                    "dropped": sum(one.dataset == counts.dataset for one in report.unusable()),
                    "reading": report.readings.get(counts.dataset, ""),
                }
                for counts in report.sets
            ],
            "copies": report.duplicates_warning(),
            "template": report.template,
            "template_warnings": report.template_warnings,
            "template_notes": report.template_notes,
            "rename_fields": self._config.data.rename_fields or {},
            "renames": {one.name: one.rename for one in report.unrendered if one.rename},
            "streamed": peeked_records(self._config.data) if self._config.data.streaming else 0,
            "seconds": round(self._seconds, 2),
            "cached": report.cached,
            "packed_rows": report.rows,
            "row_capacity": report.row_capacity,
            "packing_fill": self._prepared.fill(self._config.data.cutoff_len),
            "cutoff": self._config.data.cutoff_len,
        }

    def lengths(self) -> dict[str, object]:
        """Histogram of lengths before truncation, and the cost of other cutoffs.

        For pairs, the length is that of the longer of the two sequences (prompt and response) after truncation, and
        `longer` is the number of truncated pairs. For pairs and joined texts, no costs are estimated.

        Returns:
            The keys of `histogram`; `cutoffs`, one entry of `cost` for each candidate; `speed` in tokens per second or
            None.
        """
        counts, cutoff = self._prepared.counts, self._config.data.cutoff_len
        if "rejected_ids" in self._prepared.examples.column_names:
            return self._pair_lengths(cutoff)
        if self._prepared.report.joined:  # all have the same length, with any cutoff
            return histogram(counts[:, 2], cutoff) | {"cutoffs": [], "speed": self._speed}
        longest = int(counts[:, 2].max())
        return histogram(counts[:, 2], cutoff) | {
            "cutoffs": [cost(counts, one, self._config, self._speed) for one in candidate_cutoffs(cutoff, longest)],
            "speed": self._speed,
        }

    def _pair_lengths(self, cutoff: int) -> dict[str, object]:
        import pyarrow.compute as pc

        columns = ["input_ids", "rejected_ids"]
        table = self._prepared.examples.select_columns(columns).with_format("arrow")[:]
        first, second = (pc.list_value_length(table[column]).to_numpy() for column in columns)
        found = histogram(np.maximum(first, second), cutoff)
        return found | {"longer": len(self._prepared.report.truncated), "cutoffs": [], "speed": self._speed}

    def notable(self, kind: str = "all", offset: int = 0, limit: int = 18) -> dict[str, object]:
        """A page of notable records, see `llf_core.data.inspect.notable_records.page`.

        Each of its `rows` also has the `number` of the record's first example, None if it has none, and `where` the
        record is (`line 8`).
        """
        found = page(self._notable, kind, offset, limit)
        for row in found["rows"]:
            row["number"] = self._first.get((row["dataset"], row["record"]))
            row["where"] = self._where(row["record"], row["dataset"])
        return found

    def example(self, number: int) -> dict[str, object]:
        """Show an example token by token.

        Returns:
            `number`, `dataset`, `record`, `where` (`line 8`), `held_out`, `turns` (see `tokens_by_turn`), the counts
            `tokens` (all), `prompt`, `trained`, `cut`, and if it is packed, its `row` and `offset` there in tokens. For
            a pair these describe the chosen answer, and `rejected` has the turns and counts of the other one.
        """
        if not 0 <= number < len(self._names):
            raise IndexError(f"There is no example {number}. Expected 0 to {len(self._names) - 1}.")
        dataset, record = self._names[number]
        table, base = self._table(number)
        row = table[number - base]
        sides = [(row["input_ids"], row["labels"])]
        if "rejected_ids" in row:
            sides.append((row["rejected_ids"], row["rejected_labels"]))
        first, *other = self._sides(number, sides)
        found = {"number": number, "dataset": dataset, "record": record, "held_out": base > 0} | first
        found["where"] = self._where(record, dataset)
        return found | ({"rejected": other[0]} if other else {}) | self._packed_at(number)

    def _sides(self, number: int, sides: Sequence[tuple[list[int], list[int]]]) -> list[dict[str, object]]:
        turns = self._turns(number, [ids for ids, _ in sides])
        found: list[dict[str, object]] = []
        for place, (ids, labels) in enumerate(sides):
            known: list[ShownTurn] = (
                turns[place] if turns else [{"role": "", "tokens": tokens_without_turns(self._tokenizer, ids, labels)}]
            )
            states = [token[2] for turn in known for token in turn["tokens"]]
            counts = {state: states.count(state) for state in ("prompt", "trained", "cut")}
            if self._processor is not None:
                media = media_token_ids(self._processor)
                known = [{**turn, "tokens": collapse_media(turn["tokens"], media)} for turn in known]
            found.append({"turns": known, "tokens": len(states)} | counts)
        return found

    def numbered(self, numbers: Sequence[int]) -> list[dict[str, object]]:
        """Texts of training examples, by the `number` under which a run records their losses.

        Returns:
            For each: `number`, `place` (argument of `example`), `dataset`, `record`, `where` (`line 8`), `segments`
            (`[text, trained]` each). Unknown numbers are left out.
        """
        found = []
        for number in numbers:
            place = self._by_number.get(number)
            if place is not None:
                dataset, record = self._names[place]
                row = self._prepared.examples[place]
                shown = decode_row(self._tokenizer, row | {"index": record})
                segments = [[segment.text, segment.trained] for segment in shown.segments]
                found.append({
                    "number": number, "place": place, "dataset": dataset, "record": record, "segments": segments,
                    "where": self._where(record, dataset),
                })  # fmt: skip
        return found

    def search(self, text: str, start: int = 0, limit: int = 18) -> dict[str, object]:
        """Search the text of examples for about one second, ignoring case.

        Returns:
            `rows` (`number`, `dataset`, `record`, `where`, `reason`), and `next`: the `start` of the next call, or None
            at the end.
        """
        wanted, began = text.casefold(), time.monotonic()
        rows: list[dict[str, object]] = []
        first, total = max(0, start), len(self._names)
        place = first
        while place < total and len(rows) < limit and (place == first or time.monotonic() - began < SEARCH_SECONDS):
            table, base = self._table(place)
            ids = table[place - base : place - base + PART]["input_ids"]
            for said in self._tokenizer.batch_decode(ids):
                at = said.casefold().find(wanted)
                if at >= 0:
                    dataset, record = self._names[place]
                    context = " ".join(said[max(0, at - 30) : at + len(text) + 30].split())
                    found = {"number": place, "dataset": dataset, "record": record, "reason": f"… {context} …"}
                    rows.append(found | {"where": self._where(record, dataset)})
                place += 1
                if len(rows) == limit:
                    break
        return {"rows": rows, "next": place if place < total else None}

    def rows(self, offset: int = 0, limit: int = 7, *, least_full_first: bool = False) -> dict[str, object]:
        """A page of packed rows, by position or by number of tokens; none without packing.

        Returns:
            `total`, `capacity` in tokens, and `rows`: of each row `row`, `filled` in tokens, and its `examples` as
            `[number, label, prompt, trained]`.
        """
        packed = self._prepared.train
        if not isinstance(packed, PackedRows):
            return {"total": 0, "capacity": 0, "rows": []}
        starts = np.concatenate([[0], packed.ends[:-1]])
        filled = np.add.reduceat(self._prepared.counts[packed.members, 0], starts)
        order = np.argsort(filled, kind="stable") if least_full_first else np.arange(len(packed))
        rows = []
        for place in order[offset : offset + limit].tolist():
            members = packed.members[starts[place] : packed.ends[place]].tolist()
            examples = []
            for number in members:
                tokens, learned = self._prepared.counts[number, :2].tolist()
                dataset, record = self._names[number]
                where = self._where(record, dataset)
                label = where if len(self._sets) == 1 else f"{dataset} {where}"
                examples.append([number, label, tokens - learned, learned])
            rows.append({"row": place, "filled": int(filled[place]), "examples": examples})
        return {"total": len(packed), "capacity": packed.capacity, "rows": rows}

    def _where(self, record: int, dataset: str) -> str:
        return self._prepared.report.where(record, dataset)

    def _table(self, number: int) -> tuple[Dataset, int]:
        """The table that contains an example, and the number of the table's first example."""
        trained = len(self._prepared.counts)
        return (self._prepared.examples, 0) if number < trained else (self._prepared.eval, trained)

    @cached_property
    def _names(self) -> list[tuple[str, int]]:
        prepared = self._prepared
        names = self._named(prepared.examples, prepared.counts, 0)
        if prepared.eval is None:
            return names
        own = bool(self._config.data.eval_dataset)
        first = len(self._config.data.dataset or ()) if own else 0
        return names + self._named(prepared.eval, prepared.eval_counts, first)

    def _named(self, table: Dataset, counts: NDArray[np.int64], first: int) -> list[tuple[str, int]]:
        return [
            (self._sets[first + number], int(index))
            for number, index in zip(counts[:, SET_COLUMN].tolist(), table["index"], strict=True)
        ]

    @cached_property
    def _by_number(self) -> dict[int, int]:
        return {number: place for place, number in enumerate(self._prepared.examples["number"])}

    @cached_property
    def _first(self) -> dict[tuple[str, int], int]:
        return {name: number for number, name in reversed(list(enumerate(self._names)))}

    @cached_property
    def _notable(self) -> list[Notable]:
        prepared, names = self._prepared, self._names
        found = list(from_report(prepared.report))
        hashes = prepared.counts[:, HASH_COLUMN]
        trained = names[: len(hashes)]
        found += duplicates(trained, hashes, prepared.report.where)
        found += longest(trained, prepared.counts[:, 2])
        found += leaks(
            trained, hashes, names[len(hashes) :], prepared.eval_counts[:, HASH_COLUMN], prepared.report.where
        )
        return found

    def _turns(self, number: int, sides: Sequence[list[int]]) -> list[list[ShownTurn]] | None:
        """Turns of an example, from its record; None if they are not available or tokenize differently."""
        found = self._explain(number)
        for start in range(0, len(found), len(sides)):  # a record may give several examples
            made = found[start : start + len(sides)]
            left = [[token for token, kept in zip(one.tokens.ids, one.kept, strict=True) if kept] for one in made]
            if left == [list(ids) for ids in sides]:
                return [tokens_by_turn(self._tokenizer, self._prepared.template, one) for one in made]
        return None

    def _explain(self, number: int) -> list[UntruncatedExample]:
        name, index = self._names[number]
        config = self._config
        try:
            source = next(one for one in self._sources if one.label == name)
            opened = open_source(source, config.model.cache_dir, streaming=config.data.streaming)
            entries = read_source(opened, config.data.max_samples, config.training.seed)
            if name not in self._encoders:
                peeked = [one.row for one in islice(skip_broken(entries, name, []), PEEK_ROWS)]
                settings = EncodingSettings.of(config)
                reporter, template = ProgressReporter(None, None), self._prepared.template
                builder = Builder(settings, self._tokenizer, template, reporter, self._processor, media_dir(config))
                self._encoders[name] = builder.encoder(decide(source, peeked, settings.kind))
                entries = read_source(opened, config.data.max_samples, config.training.seed)
            record = next(one for one in entries if isinstance(one, Record) and one.index == index)
            return untruncated_examples(self._encoders[name], record)
        except (BadExample, DataError, StopIteration):
            return []

    @cached_property
    def _sources(self) -> list[Source]:
        data = self._config.data
        return sources_of(self._config, (*(data.dataset or ()), *(data.eval_dataset or ())))

    @cached_property
    def _places(self) -> NDArray[np.int64]:
        """`[examples]`, position of each example among the members of the packed rows."""
        packed: Any = self._prepared.train
        places = np.empty(len(packed.members), dtype=np.int64)
        places[packed.members] = np.arange(len(packed.members))
        return places

    def _packed_at(self, number: int) -> dict[str, int]:
        packed = self._prepared.train
        if not isinstance(packed, PackedRows) or number >= len(packed.members):
            return {}
        place = int(self._places[number])
        row = int(np.searchsorted(packed.ends, place, side="right"))
        start = int(packed.ends[row - 1]) if row else 0
        before = packed.members[start:place]
        return {"row": row, "offset": int(self._prepared.counts[before, 0].sum())}


def earlier_speed(config: RunConfig) -> float | None:
    """Median tokens per second of the newest run here with the same model, method and `fast_path`.

    The first value is left out. None if none of the last 50 runs is comparable and has at least 3 values.
    """
    for row in list_runs(home(), 0, 50, None, None).rows:
        try:
            folder = open_run(row.id)
            earlier = run_config(folder)
            same = all(
                earlier.get(key) == config.get(key) for key in ("model_name_or_path", "finetuning_type", "fast_path")
            )
            values = RunReader(folder).metrics().values("tokens_per_second") if same else np.empty(0)
        except (OSError, ValueError, KeyError):
            continue
        if len(values) >= 3:  # noqa: PLR2004 - the first ones are slow
            return float(np.median(np.asarray(values)[1:]))
    return None


def all_roles(config: RunConfig) -> dict[str, list[str]]:
    """Roles that columns can have for the config's stage: for each format, required ones first."""
    kind = wanted_kind(config)
    return {name: list(roles(name, kind)) for name in formats(kind)}


def readings(config: RunConfig) -> list[dict[str, object]]:
    """Describe how each data set of a config is read, before its preparation.

    Returns:
        For each data set: `dataset`, `names` (its columns), `entry` (whether `dataset_info.json` describes it),
        `format`, `columns` (the set's column of each role), `fits` (fraction of the first rows that match), `reason`.
        If it cannot be read, `error` in place of the last four.
    """
    data = config.data
    found = []
    for source in sources_of(config, (*(data.dataset or ()), *(data.eval_dataset or ()))):
        one: dict[str, object] = {"dataset": source.label, "names": [], "entry": source.formatting is not None}
        one["entry"] = one["entry"] and data.dataset_format is None
        try:
            opened = open_source(source, config.model.cache_dir, streaming=data.streaming)
            entries = read_source(opened, data.max_samples, config.training.seed)
            rows = [record.row for record in islice(skip_broken(entries, source.label, []), PEEK_ROWS)]
            one["names"] = list(dict.fromkeys(column for row in rows for column in row))
            reading = decide(source, rows, wanted_kind(config))
        except DataError as error:
            found.append(one | {"error": str(error)})
            continue
        one |= {"format": reading.format, "columns": reading.columns, "fits": reading.fits, "reason": reading.reason}
        found.append(one)
    return found
