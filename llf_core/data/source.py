"""A data set that a config names: its location and its format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Source:
    """A data set that was found but not read yet.

    Attributes:
        label: name as shown to people: the last component of a path, if that is unique.
        path: file or folder.
        url: URL of a cloud file.
        subset: subset (configuration) of the hub's data set; None for its default.
        folder: folder inside the hub's repository; None for the whole repository.
        num_samples: number of records to sample, with replacement if there are fewer; None for all, in their order.
        formatting: `alpaca`, `sharegpt`, `openai`, or None to infer it from the columns.
        columns: the data set's column for each of LLaMA-Factory's names; None for the format's defaults.
        tags: the data set's tag for each of LLaMA-Factory's names.
        described: where format and columns are set.
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
