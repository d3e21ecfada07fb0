"""Turns opened data sets into a folder of examples and a report: the work that the cache spares."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.data.align import decide, wanted_kind
from llf_core.data.cache import DONE
from llf_core.data.encoder import Encoder
from llf_core.data.errors import DataError
from llf_core.data.example_store import ExampleWriter
from llf_core.data.load import read_source
from llf_core.data.media import KINDS
from llf_core.data.parallel import encode_all
from llf_core.data.records import Flaw, Record
from llf_core.data.report import Broken, DataReport, SetCounts
from llf_core.runs.progress_events import ProgressEvents

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from transformers import PreTrainedTokenizerBase, ProcessorMixin

    from llf_core.config import RunConfig
    from llf_core.data.align import Reading
    from llf_core.data.load import Opened
    from llf_core.data.records import Read
    from llf_core.data.render import ChatTemplate
    from llf_core.runs import RunWriter

TRAIN, EVAL = "train.arrow", "eval.arrow"
PEEKED = 100


@dataclass(frozen=True)
class Settings:
    """What of a config decides which examples are made."""

    cutoff_len: int
    cutoff_strategy: str
    train_on_prompt: bool
    mask_history: bool
    default_system: str | None
    max_samples: int | None
    seed: int
    kind: str
    workers: int | None

    @classmethod
    def of(cls, config: RunConfig) -> Settings:
        """Picks them from a config."""
        data = config.data
        return cls(
            cutoff_len=data.cutoff_len,
            cutoff_strategy=data.cutoff_strategy,
            train_on_prompt=data.train_on_prompt,
            mask_history=data.mask_history,
            default_system=data.default_system,
            max_samples=data.max_samples,
            seed=config.training.seed,
            kind=wanted_kind(config),
            workers=data.preprocessing_num_workers,
        )

    def key(self) -> dict[str, Any]:
        """The part of a cache's key; how many processes work changes nothing."""
        return {name: value for name, value in asdict(self).items() if name != "workers"}


class Told:
    """Says every two seconds how far a preparation is, to a run's events and to whoever asked."""

    def __init__(self, run: RunWriter | None, progress: Callable[[str, int], None] | None) -> None:
        self._under_way = ProgressEvents(run, "data")
        self._progress = progress

    def __call__(self, dataset: str, rows: int) -> None:
        """Takes note that so many rows of a data set were prepared."""
        if self._under_way(rows, dataset=dataset) and self._progress is not None:
            self._progress(dataset, rows)


@dataclass(frozen=True)
class Builder:
    """Makes examples of data sets.

    Attributes:
        settings: of the config.
        tokenizer: of the model.
        template: how conversations are rendered.
        told: hears how far it is.
        processor: of a model that sees.
        media_dir: where relative paths of pictures begin.
    """

    settings: Settings
    tokenizer: PreTrainedTokenizerBase
    template: ChatTemplate
    told: Told
    processor: ProcessorMixin | None = None
    media_dir: Path = Path()

    def build(self, folder: Path, train: list[Opened], evaluation: list[Opened]) -> None:
        """Fills an empty folder with `train.arrow`, where asked for `eval.arrow`, and last `report.json`.

        Raises:
            DataError: a data set that cannot be read, or that leaves no example.
        """
        report = DataReport(template=self.template.name)
        digest = hashlib.sha256()
        for name, sets in ((TRAIN, train), (EVAL, evaluation)):
            if not sets:
                continue
            with ExampleWriter(folder / name, self.settings.kind, sees=self.processor is not None) as writer:
                for number, opened in enumerate(sets):
                    self._add(opened, number, writer, report, digest)
            if not writer.count:
                raise report.nothing_left([opened.source.label for opened in sets])
        report.fingerprint = digest.hexdigest()
        text = json.dumps(report.json(), ensure_ascii=False)
        (folder / DONE).write_text(text, encoding="utf-8", errors="backslashreplace")

    def peek(self, opened: Opened, report: DataReport) -> Reading:
        """How a set is read, by its first records; the report says so.

        Raises:
            DataError: no record can be read, or no way is known to read them.
        """
        read = read_source(opened, self.settings.max_samples, self.settings.seed)
        return self._decide(opened, list(islice(whole(read, opened.source.label, []), PEEKED)), report)

    def _decide(self, opened: Opened, peeked: list[Record], report: DataReport) -> Reading:
        name = opened.source.label
        if not peeked:
            raise report.nothing_left([name])
        reading = decide(opened.source, [record.row for record in peeked], self.settings.kind)
        report.readings[name] = reading.text()
        media = [column for role, column in reading.columns.items() if role in KINDS]
        if media and self.processor is None:
            raise DataError(
                f"The data set {name} has pictures, videos or sounds (column {', '.join(media)}), and the model takes "
                "text alone. Take a vision model; or name the other columns in dataset_columns, and it is trained "
                "without them."
            )
        return reading

    def encoder(self, reading: Reading) -> Encoder:
        """What makes examples of a set's records, once it is known how they are read."""
        settings = self.settings
        return Encoder(
            tokenizer=self.tokenizer,
            template=self.template,
            reading=reading,
            cutoff_len=settings.cutoff_len,
            train_on_prompt=settings.train_on_prompt,
            mask_history=settings.mask_history,
            default_system=settings.default_system,
            cutoff_strategy=settings.cutoff_strategy,
            kind=settings.kind,
            processor=self.processor,
            media_dir=self.media_dir,
        )

    def _add(
        self, opened: Opened, number: int, writer: ExampleWriter, report: DataReport, digest: hashlib._Hash
    ) -> None:
        name, settings, lines = opened.source.label, self.settings, len(report.broken)
        read = read_source(opened, settings.max_samples, settings.seed)
        found = whole(read, name, report.broken)
        peeked = list(islice(found, PEEKED))
        encoder = self.encoder(self._decide(opened, peeked, report))
        rows, before = 0, writer.totals()
        for chunk in encode_all(encoder, chain(peeked, found), settings.workers):
            writer.write(chunk.examples, number)
            report.note(name, chunk.examples, chunk.dropped)
            for row in chunk.digests:
                digest.update(row)
            rows += chunk.rows
            self.told(name, rows)
        kept, tokens, learned = (now - then for now, then in zip(writer.totals(), before, strict=True))
        records = rows + len(report.broken) - lines
        report.sets.append(SetCounts(name, records, kept, tokens, learned, opened.unit))


def whole(read: Iterable[Read], name: str, broken: list[Broken]) -> Iterator[Record]:
    """The records; lines that cannot be read are put down as broken."""
    for entry in read:
        if isinstance(entry, Flaw):
            broken.append(Broken(entry.line, entry.reason, name, entry.index))
        else:
            yield entry
