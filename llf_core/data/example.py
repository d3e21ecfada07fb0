"""Examples: token ids and labels, and the chunk of them that the encoder makes of some records."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llf_core.data.template_check import Field


class Example(NamedTuple):
    """A training example.

    Attributes:
        index: index of the record that it comes from.
        ids: token ids `[seq]`.
        labels: labels `[seq]`, -100 where a token does not contribute to the loss.
        cut: number of tokens that `cutoff_len` removed.
        cut_learned: number of those that would contribute to the loss; 0 for a preference pair.
        learned: number of labels that contribute to the loss, see `count_trained`; of a pair in both sequences.
        more: further columns: `rejected_ids` and `rejected_labels` of a preference pair, `good` of an unpaired
            preference, `seen` for a multimodal model (text and media as JSON, empty without media; of a pair also
            `rejected_seen`).
    """

    index: int  # type: ignore[assignment]  # nobody looks a value up in it
    ids: Sequence[int]
    labels: Sequence[int]
    cut: int
    cut_learned: int
    learned: int
    more: Mapping[str, Any] | None = None


@dataclass
class Chunk:
    """Result of encoding some records.

    Attributes:
        dropped: index and reason of every record that gives no example, or not one for each of its responses.
        digests: SHA-256 of each valid record, in order; independent of the file format.
        fields: fields of the conversations beyond role and content, see `fields_of`.
    """

    examples: list[Example] = field(default_factory=list)
    dropped: list[tuple[int, str]] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    rows: int = 0
    fields: set[Field] = field(default_factory=set)
