"""Report of a preparation: every truncated, dropped and broken example by its index, and a preview."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from llf_core.config.data import IGNORED
from llf_core.config.number_format import percent, with_unit
from llf_core.data.common_prefix import common_prefix_length
from llf_core.data.errors import DataError
from llf_core.data.template_check import RENDERED, FieldCheck
from llf_core.runs.findings import duplicates_warning

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from transformers import PreTrainedTokenizerBase

    from llf_core.data.example_store import Example
    from llf_core.data.template_check import TemplateCheck

MAX_NAMED = 5
MAX_REASONS_NAMED = 3
OPEN, CLOSE = "⟦", "⟧"
REJECTED = "\n… rejected: "


class Truncated(NamedTuple):
    """An example from which `cutoff_len` removed `cut` tokens."""

    index: int  # type: ignore[assignment]  # nobody looks a value up in it
    cut: int
    dataset: str


class Dropped(NamedTuple):
    """A record that yields no example, or not one for each of its responses."""

    index: int  # type: ignore[assignment]  # nobody looks a value up in it
    reason: str
    dataset: str


class SplitRecord(NamedTuple):
    """A record that yields several examples: it is longer than `cutoff_len`, or each of its answers is one."""

    index: int  # type: ignore[assignment]  # nobody looks a value up in it
    parts: int
    dataset: str


class Broken(NamedTuple):
    """A line that cannot be read, by its 1-based number in the file."""

    line: int
    reason: str
    dataset: str
    index: int  # type: ignore[assignment]  # nobody looks a value up in it


class SetCounts(NamedTuple):
    """Counts of a data set, including held-out examples and broken lines; `unit` is `line`, `row` or `record`."""

    dataset: str
    records: int
    examples: int
    tokens: int
    trained_tokens: int
    unit: str = "record"


class Segment(NamedTuple):
    """A part of an example's text whose tokens are all trained on, or all not."""

    text: str
    trained: bool


@dataclass(frozen=True)
class PreviewExample:
    """A decoded example."""

    index: int
    segments: tuple[Segment, ...]

    def text(self) -> str:
        """The text, with the trained parts between ⟦ and ⟧, for a terminal or log without colors."""
        return "".join(f"{OPEN}{part.text}{CLOSE}" if part.trained else part.text for part in self.segments)


LISTS: dict[str, Any] = {
    "truncated": Truncated,
    "dropped": Dropped,
    "broken": Broken,
    "divided": SplitRecord,
    "sets": SetCounts,
    "unrendered": FieldCheck,
}


@dataclass
class DataReport:
    """Report of a preparation.

    Attributes:
        leaked: number of evaluation examples that are also training examples.
        tokens: number of tokens of the training examples; of streamed data also of those that `val_size` holds out.
        trained_tokens: number of those tokens that contribute to the loss.
        sets: counts of each data set, including those for evaluation.
        readings: for each data set, how its rows are read and why.
        fingerprint: SHA-256 of the conversations, independent of the file format.
        streamed: whether examples are made during training; counts cover what has been read so far.
        copies: number of examples that were removed as duplicates.
        repeated: number of training examples that duplicate an earlier one.
        rows: number of packed rows; 0 without packing.
        row_capacity: maximum number of tokens of a packed row.
        packing_fill: fraction of the packed rows' capacity that holds tokens; 0 without packing.
        joined: number of training texts that were joined and cut into the examples; 0 if they were not.
        left_out: number of tokens of those that do not fill an example.
        unrendered: fields of the conversations that the chat template does not render.
        template_warnings: sentences about what the chat template loses in training.
        template_notes: sentences about the chat template that need no action.
    """

    examples: int = 0
    eval_examples: int = 0
    leaked: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    truncated: list[Truncated] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)
    divided: list[SplitRecord] = field(default_factory=list)
    sets: list[SetCounts] = field(default_factory=list)
    readings: dict[str, str] = field(default_factory=dict)
    template: str = ""
    preview: list[PreviewExample] = field(default_factory=list)
    fingerprint: str = ""
    cached: bool = False
    streamed: bool = False
    copies: int = 0
    repeated: int = 0
    rows: int = 0
    row_capacity: int = 0
    packing_fill: float = 0.0
    joined: int = 0
    left_out: int = 0
    unrendered: list[FieldCheck] = field(default_factory=list)
    template_warnings: list[str] = field(default_factory=list)
    template_notes: list[str] = field(default_factory=list)

    def json(self) -> dict[str, Any]:
        """Convert the report to JSON values, for the cache and for views; named tuples become objects."""
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
        """Read a report that `json` has written, when examples are taken from the cache."""
        fields = dict(value)
        for name, kind in LISTS.items():
            fields[name] = [kind(**entry) for entry in value[name]]
        fields["preview"] = [
            PreviewExample(shown["index"], tuple(Segment(**part) for part in shown["segments"]))
            for shown in value["preview"]
        ]
        return cls(**fields)

    def where(self, index: int, dataset: str) -> str:
        """Place of a record as shown to people, counted from 1: `line 8`, `row 8`."""
        unit = next((counts.unit for counts in self.sets if counts.dataset == dataset), "record")
        return f"{unit} {index + 1:,}"

    def counts(self) -> dict[str, int]:
        """The values of the event `data`; those of packing, evaluation and duplicates only if there are any."""
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
        """Record the truncated, dropped (index and reason) and divided records of a chunk of a data set."""
        self.truncated += [Truncated(one.index, one.cut, dataset) for one in examples if one.cut]
        self.dropped += [Dropped(index, reason, dataset) for index, reason in dropped]
        parts = Counter(one.index for one in examples)
        self.divided += [SplitRecord(index, count, dataset) for index, count in parts.items() if count > 1]

    def note_template(self, found: TemplateCheck) -> None:
        """Record what the chat template does with the fields of a data set."""
        unrendered = [one for one in found.fields if one.state != RENDERED]
        self.unrendered += [one for one in unrendered if one not in self.unrendered]
        self.template_warnings += [one for one in found.warnings(self.template) if one not in self.template_warnings]
        for note in found.notes(self.template):
            self.add_template_note(note)

    def add_template_note(self, note: str) -> None:
        """Add a sentence about the chat template that needs no action, unless another data set has added it."""
        if note and note not in self.template_notes:
            self.template_notes.append(note)

    def check_all_used(self) -> None:
        """Refuse data with unusable records, for `stop_on_dropped: true`."""
        unusable = self.unusable()
        if not unusable:
            return
        first = "; ".join(self._named_place(one) for one in unusable[:MAX_NAMED])
        more = f"; and {len(unusable) - MAX_NAMED:,} more" if len(unusable) > MAX_NAMED else ""
        one = len(unusable) == 1
        count, it = ("1 record gives", "it") if one else (f"{len(unusable):,} records give", "them")
        listed = " `llf inspect --json` with `stop_on_dropped=false` lists all of them." if more else ""
        raise DataError(
            f"{count} no example, and `stop_on_dropped` is true: {first}{more}. Fix the record{'' if one else 's'}, or "
            f"set `stop_on_dropped` to false to train without {it}.{listed}"
        )

    def no_examples_error(self, names: Sequence[str]) -> DataError:
        """Create the error for data sets without any example, with the most frequent reasons."""
        reasons = Counter(entry.reason for entry in self.dropped).most_common(MAX_REASONS_NAMED)
        why = [f"{reason} ({count:,} of them)" for reason, count in reasons]
        why += [f"{with_unit(len(self.broken), 'line')} cannot be read"] if self.broken else []
        told = "; ".join(why) or "there are no records"
        return DataError(f"No example of {', '.join(names)} is usable: {told}. Fix the data, or use another data set.")

    def unusable(self) -> list[Dropped]:
        """All dropped records and broken lines, by data set and index."""
        lines = [Dropped(one.index, self._unread(one), one.dataset) for one in self.broken]
        order = {counts.dataset: place for place, counts in enumerate(self.sets)}
        return sorted([*self.dropped, *lines], key=lambda one: (order.get(one.dataset, 0), one.index))

    def summary(self) -> dict[str, Any]:
        """The object that `llf inspect --json` prints: the report and `records`; `dropped` includes broken lines."""
        records = sum(counts.records for counts in self.sets)
        return self.json() | {"records": records, "dropped": [entry._asdict() for entry in self.unusable()]}

    def broken_lines_warning(self) -> str | None:
        """Warning about broken lines, since the run goes on without them; None if there are none."""
        if not self.broken:
            return None
        first, count = self.broken[0], len(self.broken)
        which = f"Line {first.line} of {first.dataset} cannot be read ({first.reason})"
        more = f", and {with_unit(count - 1, 'more line')} cannot either" if count > 1 else ""
        return f"{which}{more}. The rest is used: {with_unit(self.examples + self.eval_examples, 'example')}."

    def duplicates_warning(self) -> str | None:
        """Warning about duplicates among the training examples, and the key that removes them; None for few."""
        warning = duplicates_warning(self.repeated, self.joined or self.examples)
        return None if warning is None else f"{warning} `drop_duplicates: true` drops them."

    def text(self) -> str:
        """The report as text for a terminal or log: counts, the first notable records of each kind, and the preview."""
        warning = self.duplicates_warning()
        share = self.trained_tokens / self.tokens if self.tokens else 0.0
        lines = [
            f"{with_unit(self.examples, 'training example')}, {with_unit(self.eval_examples, 'evaluation example')}.",
            f"{with_unit(self.tokens, 'token')}, {self.trained_tokens:,} of them in the loss ({percent(share, 1)}).",
            *(["The data is streamed: these counts cover the records read so far."] if self.streamed else []),
            *self._packed(),
            *(f"{name}: read as {reading}." for name, reading in self.readings.items()),
            f"Template: {self.template}.",
            *self.template_warnings,
            *self.template_notes,
            *([f"{with_unit(self.copies, 'duplicate')} of earlier examples dropped."] if self.copies else []),
            *([] if warning is None else [warning]),
            *_named(
                "truncated at cutoff_len",
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
            lines += ["", f"Example {shown.index + 1} (in the loss between {OPEN} and {CLOSE}):", shown.text()]
        return "\n".join(lines)

    def _unread(self, one: Broken) -> str:
        """Why a line is broken; with its number if the record's place does not show it."""
        by_line = self.where(one.index, one.dataset) == f"line {one.line:,}"
        return f"{'it' if by_line else f'line {one.line:,}'} cannot be read: {one.reason}"

    def _named_place(self, one: Dropped) -> str:
        return f"{one.dataset} {self.where(one.index, one.dataset)}: {one.reason}"

    def _packed(self) -> list[str]:
        if self.joined:
            texts, lost = with_unit(self.joined, "text"), with_unit(self.left_out, "token")
            return [f"{texts} joined and cut into the training examples. {lost} at the ends left out."]
        if not self.rows:
            return []
        rows, capacity = with_unit(self.rows, "row"), with_unit(self.row_capacity, "token")
        return [f"Packed into {rows} of up to {capacity}, {percent(self.packing_fill, 1)} full."]


def _named(what: str, entries: list[str]) -> list[str]:
    if not entries:
        return []
    more = [f"  … and {len(entries) - MAX_NAMED:,} more"] if len(entries) > MAX_NAMED else []
    return [f"{len(entries):,} {what}:", *(f"  {entry}" for entry in entries[:MAX_NAMED]), *more]


def decode_row(tokenizer: PreTrainedTokenizerBase, row: Mapping[str, Any]) -> PreviewExample:
    """Decode a prepared example for people; of a pair, the rejected answer follows the chosen one.

    Args:
        row: `index`, `input_ids`, `labels`; of a pair also `rejected_ids`, `rejected_labels` (`[seq]` each).
    """
    shown = decode_example(tokenizer, row["index"], row["input_ids"], row["labels"])
    if "rejected_ids" not in row:
        return shown
    worse = decode_example(tokenizer, row["index"], row["rejected_ids"], row["rejected_labels"])
    answer = [part for part in worse.segments if part.trained]
    return PreviewExample(shown.index, (*shown.segments, Segment(REJECTED, trained=False), *answer))


def decode_example(
    tokenizer: PreTrainedTokenizerBase, index: int, ids: Sequence[int], labels: Sequence[int]
) -> PreviewExample:
    """Decode an example into trained and untrained segments.

    A character whose tokens are in two segments is in the second one; the first one then ends with replacement
    characters (U+FFFD).

    Args:
        ids: token ids `[seq]`.
        labels: labels `[seq]`, -100 where a token does not contribute to the loss.
    """
    borders = [
        place
        for place in range(1, len(ids) + 1)
        if place == len(ids) or (labels[place] == IGNORED) != (labels[place - 1] == IGNORED)
    ]
    segments, before = [], ""
    for border in borders:
        # A segment decoded alone may lose a leading space or part of a character, so prefixes are decoded.
        text = tokenizer.decode(list(ids[:border]), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        shown = text[common_prefix_length(before, text) :]
        segments.append(Segment(shown, labels[border - 1] != IGNORED))
        before = text
    return PreviewExample(index, tuple(segments))
