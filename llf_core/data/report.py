"""What was made of the data: every cut, dropped and broken example by its number, and three of them to look at."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from llf_core.config.labels import IGNORED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

NAMED = 5
OPEN, CLOSE = "⟦", "⟧"


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


class Broken(NamedTuple):
    """A line that cannot be read."""

    line: int
    reason: str
    dataset: str


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


@dataclass
class DataReport:
    """What was made of the data.

    Attributes:
        examples: to train on.
        eval_examples: to evaluate on.
        tokens: of the examples to train on.
        trained_tokens: those of them that are learned from.
        truncated: every example that was cut, with the tokens it lost and its data set.
        dropped: every example that was left out, with the reason and its data set.
        broken: every line that could not be read, with the reason and its data set.
        readings: for each data set, how its rows were read and why.
        template: how conversations were rendered.
        preview: the first examples, decoded.
        fingerprint: SHA-256 over the conversations; the same for the same data in another file.
        cached: whether the result of an earlier preparation was taken.
        rows: that the examples to train on were packed into; 0 where each is a row of its own.
        row_capacity: tokens that a packed row has room for.
        filled: share of the packed rows' room that holds tokens.
    """

    examples: int = 0
    eval_examples: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    truncated: list[Truncated] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)
    readings: dict[str, str] = field(default_factory=dict)
    template: str = ""
    preview: list[Shown] = field(default_factory=list)
    fingerprint: str = ""
    cached: bool = False
    rows: int = 0
    row_capacity: int = 0
    filled: float = 0.0

    def json(self) -> dict[str, Any]:
        """The report as JSON values; lists of records are lists of objects."""
        value = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        for name in ("truncated", "dropped", "broken"):
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
        for name, kind in (("truncated", Truncated), ("dropped", Dropped), ("broken", Broken)):
            fields[name] = [kind(**entry) for entry in value[name]]
        fields["preview"] = [
            Shown(shown["index"], tuple(Segment(**part) for part in shown["segments"])) for shown in value["preview"]
        ]
        return cls(**fields)

    def counts(self) -> dict[str, int]:
        """The numbers of the event `data`; `rows` where the examples are packed."""
        packed = {"rows": self.rows} if self.rows else {}
        return {
            "examples": self.examples,
            "tokens": self.tokens,
            "trained_tokens": self.trained_tokens,
            "truncated": len(self.truncated),
            "dropped": len(self.dropped),
            "broken": len(self.broken),
            **packed,
        }

    def left_out(self) -> str | None:
        """A sentence on the lines that could not be read, for a warning; None where all could be."""
        if not self.broken:
            return None
        first, count = self.broken[0], len(self.broken)
        which = f"Line {first.line} of {first.dataset} cannot be read ({first.reason})"
        more = f", and {count - 1:,} more lines cannot either" if count > 1 else ""
        return f"{which}{more}. The rest is used: {self.examples + self.eval_examples:,} examples."

    def text(self) -> str:
        """The report for a terminal or a log."""
        share = self.trained_tokens / self.tokens if self.tokens else 0.0
        lines = [
            f"{self.examples:,} examples to train on, {self.eval_examples:,} to evaluate on.",
            f"{self.tokens:,} tokens, {self.trained_tokens:,} of them trained ({share:.1%}).",
            *self._packed(),
            *(f"{name}: read as {reading}." for name, reading in self.readings.items()),
            f"Template: {self.template}.",
            *_named("cut at cutoff_len", [f"{one.dataset}[{one.index}] by {one.cut}" for one in self.truncated]),
            *_named("dropped", [f"{one.dataset}[{one.index}]: {one.reason}" for one in self.dropped]),
            *_named("broken", [f"{one.dataset} line {one.line}: {one.reason}" for one in self.broken]),
        ]
        for shown in self.preview:
            lines += ["", f"Example {shown.index} (trained between {OPEN} and {CLOSE}):", shown.text()]
        return "\n".join(lines)

    def _packed(self) -> list[str]:
        if not self.rows:
            return []
        return [f"Packed into {self.rows:,} rows of up to {self.row_capacity:,} tokens, {self.filled:.1%} full."]


def _named(what: str, entries: list[str]) -> list[str]:
    if not entries:
        return []
    more = [f"  … and {len(entries) - NAMED:,} more"] if len(entries) > NAMED else []
    return [f"{len(entries):,} {what}:", *(f"  {entry}" for entry in entries[:NAMED]), *more]


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
