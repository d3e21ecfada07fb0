"""One data set that a config names: where it lies, and what its records look like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Source:
    """One data set, found but not read.

    Attributes:
        name: as the config names it.
        label: the same for a person: a path's last part where that tells it from the others.
        path: its file or folder; None for a set of a hub.
        hub_id: its id on a hub.
        url: where it lies in a cloud.
        subset: its configuration on the hub.
        split: which split of the hub's set.
        folder: a folder inside the hub's repository.
        num_samples: draw this many examples, with replacement where the set is smaller.
        formatting: `alpaca`, `sharegpt`, `openai`, or None where it must be proposed from the columns.
        columns: LLaMA-Factory's name of a column to the set's own; None means the format's defaults.
        tags: LLaMA-Factory's name of a tag to the set's own.
        ranking: whether it holds preference pairs.
        described: where format and columns are from.
    """

    name: str
    label: str = ""
    path: Path | None = None
    hub_id: str | None = None
    url: str | None = None
    subset: str | None = None
    split: str = "train"
    folder: str | None = None
    num_samples: int | None = None
    formatting: str | None = None
    columns: tuple[tuple[str, str], ...] | None = None
    tags: tuple[tuple[str, str], ...] = ()
    ranking: bool = False
    described: str = "dataset_info.json"
