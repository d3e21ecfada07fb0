"""What was made of the data: every cut, dropped and broken example by its number, and three of them to look at."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from llf_core.config.ignore_index import IGNORED
from llf_core.data.errors import DataError
from llf_core.runs.duplicate_examples import duplicates_warning

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from transformers import PreTrainedTokenizerBase

    from llf_core.data.encoder import Example

NAMED = 5
REASONS_NAMED = 3
OPEN, CLOSE = "⟦", "⟧"
REJECTED = "\n… rejected: "


class Truncated(NamedTuple):
    """An example that `cutoff_len` shortened."""

    index: int  # type: ignore[assignment]  # nobody looks a value up in it
    cut: int
    dataset: str


class Dropped(NamedTuple):
    """An example that nothing can be learned from."""

    index: int  # type: ignore[assignment]  # nobody looks a value up in it
    reason: str
    dataset: str


class Divided(NamedTuple):
    """A record that gives several examples: it is longer than `cutoff_len`, or each of its answers is one."""

    index: int  # type: ignore[assignment]  # nobody looks a value up in it
    parts: int
    dataset: str


class Broken(NamedTuple):
    """A line that cannot be read, and the record that it would have been."""

    line: int
    reason: str
    dataset: str
    index: int  # type: ignore[assignment]  # nobody looks a value up in it


class SetCounts(NamedTuple):
    """What became of a data set, what is held out of it included.

    Attributes:
        dataset: its name.
        records: lines that cannot be read among them.
        examples: that are kept.
        tokens: of them.
        trained_tokens: those of them that are learned from.
        unit: what people call the place of a record: `line`, `row` or `record`.
    """

    dataset: str
    records: int
    examples: int
    tokens: int
    trained_tokens: int
    unit: str = "record"


class Segment(NamedTuple):
    """A stretch of an example, all of it trained or none."""

    text: str
    trained: bool


@dataclass(frozen=True)
class Shown:
    """One example, decoded.

    Attributes:
        index: of its record.
        segments: its text, in order.
    """

    index: int
    segments: tuple[Segment, ...]

    def text(self) -> str:
        """The trained parts between ⟦ and ⟧."""
        return "".join(f"{OPEN}{part.text}{CLOSE}" if part.trained else part.text for part in self.segments)


LISTS: dict[str, Any] = {
    "truncated": Truncated,
    "dropped": Dropped,
    "broken": Broken,
    "divided": Divided,
    "sets": SetCounts,
}


@dataclass
class DataReport:
    """What was made of the data.

    Attributes:
        examples: to train on.
        eval_examples: to evaluate on.
        leaked: those of them that are trained on too.
        tokens: of the examples to train on.
        trained_tokens: those of them that are learned from.
        truncated: every example that was cut, with the tokens it lost and its data set.
        dropped: every example that was left out, with the reason and its data set.
        broken: every line that could not be read, with the reason and its data set.
        divided: every record that gives several examples, with their number and its data set.
        sets: what became of each data set, those to evaluate on too.
        readings: for each data set, how its rows were read and why.
        template: how conversations were rendered.
        preview: the first examples, decoded.
        fingerprint: SHA-256 over the conversations; the same for the same data in another file.
        cached: whether the result of an earlier preparation was taken.
        streamed: whether examples are made while the training goes on; counts are of what was read so far.
        copies: examples that were left out since they repeat an earlier one.
        repeated: examples to train on that repeat an earlier one.
        rows: that the examples to train on were packed into; 0 where each is a row of its own.
        row_capacity: tokens that a packed row has room for.
        packing_fill: share of the packed rows' room that holds tokens; 0 where nothing is packed.
    """

    examples: int = 0
    eval_examples: int = 0
    leaked: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    truncated: list[Truncated] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)
    divided: list[Divided] = field(default_factory=list)
    sets: list[SetCounts] = field(default_factory=list)
    readings: dict[str, str] = field(default_factory=dict)
    template: str = ""
    preview: list[Shown] = field(default_factory=list)
    fingerprint: str = ""
    cached: bool = False
    streamed: bool = False
    copies: int = 0
    repeated: int = 0
    rows: int = 0
    row_capacity: int = 0
    packing_fill: float = 0.0

    def json(self) -> dict[str, Any]:
        """The report as JSON values; lists of records are lists of objects."""
        value = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        for name in LISTS:
            value[name] = [entry._asdict() for entry in value[name]]
        value["preview"] = [
            {"index": shown.index, "segments": [part._asdict() for part in shown.segments], "text": shown.text()}
            for shown in self.preview
        ]
        return value

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> DataReport:
        """The report that `json` wrote."""
        fields = dict(value)
        for name, kind in LISTS.items():
            fields[name] = [kind(**entry) for entry in value[name]]
        fields["preview"] = [
            Shown(shown["index"], tuple(Segment(**part) for part in shown["segments"])) for shown in value["preview"]
        ]
        return cls(**fields)

    def where(self, index: int, dataset: str) -> str:
        """The place of a record as people are told it, counted from 1: `line 8`, `row 8`.

        Args:
            index: its 0-based number.
            dataset: its data set.
        """
        unit = next((counts.unit for counts in self.sets if counts.dataset == dataset), "record")
        return f"{unit} {index + 1:,}"

    def counts(self) -> dict[str, int]:
        """The numbers of the event `data`.

        `rows` where the examples are packed, `leaked` where some are held out, `copies` where some repeat earlier ones.
        """
        more = {"rows": self.rows} if self.rows else {}
        if self.eval_examples:
            more |= {"eval_examples": self.eval_examples, "leaked": self.leaked}
        if self.repeated:
            more["copies"] = self.repeated
        return {
            "examples": self.examples,
            "tokens": self.tokens,
            "trained_tokens": self.trained_tokens,
            "truncated": len(self.truncated),
            "dropped": len(self.dropped),
            "broken": len(self.broken),
            **more,
        }

    def note(self, dataset: str, examples: Sequence[Example], dropped: Sequence[tuple[int, str]]) -> None:
        """Puts down which examples of a data set were cut, which records were dropped, and which give several."""
        self.truncated += [Truncated(one.index, one.cut, dataset) for one in examples if one.cut]
        self.dropped += [Dropped(index, reason, dataset) for index, reason in dropped]
        parts = Counter(one.index for one in examples)
        self.divided += [Divided(index, count, dataset) for index, count in parts.items() if count > 1]

    def check_all_used(self) -> None:
        """Refuses data of which something gives no example.

        Raises:
            DataError: the first such records are named.
        """
        unusable = self.unusable()
        if not unusable:
            return
        first = "; ".join(self._named_place(one) for one in unusable[:NAMED])
        more = f"; and {len(unusable) - NAMED:,} more" if len(unusable) > NAMED else ""
        count = "1 record gives" if len(unusable) == 1 else f"{len(unusable):,} records give"
        raise DataError(
            f"{count} no example, and `stop_on_dropped` is true: {first}{more}. "
            "Mend them, or set it to false to go on without them."
        )

    def nothing_left(self, names: Sequence[str]) -> DataError:
        """The error of data sets that give no example at all."""
        reasons = Counter(entry.reason for entry in self.dropped).most_common(REASONS_NAMED)
        why = "; ".join(f"{reason} ({count:,} of them)" for reason, count in reasons)
        lines = f"; {len(self.broken)} lines cannot be read" if self.broken else ""
        return DataError(
            f"No example of {', '.join(names)} can be learned from: {why}{lines}. Mend the data, or take another set."
        )

    def unusable(self) -> list[Dropped]:
        """Every record that gives no example, lines that cannot be read among them, by data set and number."""
        lines = [Dropped(one.index, self._unread(one), one.dataset) for one in self.broken]
        order = {counts.dataset: place for place, counts in enumerate(self.sets)}
        return sorted([*self.dropped, *lines], key=lambda one: (order.get(one.dataset, 0), one.index))

    def summary(self) -> dict[str, Any]:
        """What `llf inspect --json` prints: `dropped` holds the lines that cannot be read too."""
        records = sum(counts.records for counts in self.sets)
        return self.json() | {"records": records, "dropped": [entry._asdict() for entry in self.unusable()]}

    def left_out(self) -> str | None:
        """A sentence on the lines that could not be read, for a warning; None where all could be."""
        if not self.broken:
            return None
        first, count = self.broken[0], len(self.broken)
        which = f"Line {first.line} of {first.dataset} cannot be read ({first.reason})"
        more = f", and {count - 1:,} more lines cannot either" if count > 1 else ""
        return f"{which}{more}. The rest is used: {self.examples + self.eval_examples:,} examples."

    def duplicates_warning(self) -> str | None:
        """What is to be said of copies among the examples to train on, and what leaves them out; None of few."""
        told = duplicates_warning(self.repeated, self.examples)
        return None if told is None else f"{told} `drop_duplicates: true` leaves them out."

    def text(self) -> str:
        """The report for a terminal or a log."""
        told = self.duplicates_warning()
        share = self.trained_tokens / self.tokens if self.tokens else 0.0
        lines = [
            f"{self.examples:,} examples to train on, {self.eval_examples:,} to evaluate on.",
            f"{self.tokens:,} tokens, {self.trained_tokens:,} of them trained ({share:.1%}).",
            *(["The data is streamed: these are the counts of what was read so far."] if self.streamed else []),
            *self._packed(),
            *(f"{name}: read as {reading}." for name, reading in self.readings.items()),
            f"Template: {self.template}.",
            *([f"{self.copies:,} copies of earlier examples left out."] if self.copies else []),
            *([] if told is None else [told]),
            *_named(
                "cut at cutoff_len",
                [f"{one.dataset} {self.where(one.index, one.dataset)} by {one.cut}" for one in self.truncated],
            ),
            *_named("dropped", [self._named_place(one) for one in self.dropped]),
            *_named(
                "divided",
                [f"{one.dataset} {self.where(one.index, one.dataset)} into {one.parts}" for one in self.divided],
            ),
            *_named("broken", [f"{one.dataset} line {one.line}: {one.reason}" for one in self.broken]),
        ]
        for shown in self.preview:
            lines += ["", f"Example {shown.index + 1} (trained between {OPEN} and {CLOSE}):", shown.text()]
        return "\n".join(lines)

    def _unread(self, one: Broken) -> str:
        """Why a line gives no record; with its number where the record's place does not tell it."""
        by_line = self.where(one.index, one.dataset) == f"line {one.line:,}"
        return f"{'it' if by_line else f'line {one.line:,}'} cannot be read: {one.reason}"

    def _named_place(self, one: Dropped) -> str:
        return f"{one.dataset} {self.where(one.index, one.dataset)}: {one.reason}"

    def _packed(self) -> list[str]:
        if not self.rows:
            return []
        return [f"Packed into {self.rows:,} rows of up to {self.row_capacity:,} tokens, {self.packing_fill:.1%} full."]


def _named(what: str, entries: list[str]) -> list[str]:
    if not entries:
        return []
    more = [f"  … and {len(entries) - NAMED:,} more"] if len(entries) > NAMED else []
    return [f"{len(entries):,} {what}:", *(f"  {entry}" for entry in entries[:NAMED]), *more]


def show_row(tokenizer: PreTrainedTokenizerBase, row: Mapping[str, Any]) -> Shown:
    """Decodes a prepared example; of a pair the rejected answer stands behind the chosen one.

    Args:
        tokenizer: of the model.
        row: `index`, `input_ids`, `labels`; of a pair `rejected_ids`, `rejected_labels`.
    """
    shown = show(tokenizer, row["index"], row["input_ids"], row["labels"])
    if "rejected_ids" not in row:
        return shown
    worse = show(tokenizer, row["index"], row["rejected_ids"], row["rejected_labels"])
    said = [part for part in worse.segments if part.trained]
    return Shown(shown.index, (*shown.segments, Segment(REJECTED, trained=False), *said))


def show(tokenizer: PreTrainedTokenizerBase, index: int, ids: Sequence[int], labels: Sequence[int]) -> Shown:
    """Decodes an example, its trained stretches apart.

    Args:
        tokenizer: of the model.
        index: of its record.
        ids: `[seq]`.
        labels: `[seq]`, -100 where nothing is learned.
    """
    borders = [
        place
        for place in range(1, len(ids) + 1)
        if place == len(ids) or (labels[place] == IGNORED) != (labels[place - 1] == IGNORED)
    ]
    segments, before = [], ""
    for border in borders:
        # A stretch alone may lose a leading blank or half a character, so beginnings are decoded and compared.
        text = tokenizer.decode(list(ids[:border]), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        segments.append(Segment(text[len(before) :], labels[border - 1] != IGNORED))
        before = text
    return Shown(index, tuple(segments))
