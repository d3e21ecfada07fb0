"""How each data set's columns are read, and which other roles they could have, for the user to correct."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from llf_core.data.align import PEEK_ROWS, decide, formats, roles, wanted_kind
from llf_core.data.build import skip_broken
from llf_core.data.errors import DataError
from llf_core.data.load import open_source, read_source
from llf_core.data.sources import sources_of

if TYPE_CHECKING:
    from llf_core.config import RunConfig


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
