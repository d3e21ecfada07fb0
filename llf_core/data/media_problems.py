"""Finds images, videos and audio that cannot be used in the first records of a data set, without a processor."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from llf_core.config import Problem
from llf_core.config.name_checks.model_folder import config_of, folder_of
from llf_core.data.align import wanted_kind
from llf_core.data.errors import BadExample
from llf_core.data.formats.conversation import cell_of
from llf_core.data.media import KINDS, add_media
from llf_core.data.media_files import check_medium
from llf_core.data.precheck import quick_check
from llf_core.data.sources import media_dir
from llf_core.estimate.model_shapes import is_multimodal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llf_core.config import RunConfig
    from llf_core.config.declaration import DataKind

FIELDS = ("dataset", "eval_dataset")
MOST_RECORDS = 20
"""Number of records of a data set whose media are checked."""


def media_problems(config: RunConfig) -> tuple[Problem, ...]:
    """Check the media of the first records of a config's local data: whether each file exists and is an image.

    One warning per `dataset` or `eval_dataset`; none for a text model, which leaves media out.
    """
    folder = folder_of(config.model.model_name_or_path, config.model.cache_dir)
    settings = {} if folder is None else config_of(folder)
    if settings and not is_multimodal(settings):
        return ()
    kind, found = wanted_kind(config), []
    for key in FIELDS:
        for name in config.get(key) or ():
            results = [*islice(_results(config, name, kind), MOST_RECORDS)]
            reasons = [one for one in results if one]
            if reasons:
                message = (
                    f"{len(reasons)} of the first {len(results)} records of {name} that have media cannot be used, the "
                    f"first because {reasons[0]}. A run drops such records. Expected readable files; relative paths "
                    f"start from {media_dir(config)} (media_dir)."
                )
                keys = (key, "media_dir", "model_name_or_path")
                found.append(Problem("violation", key, config.get(key), message, severity="warning", keys=keys))
    return tuple(found)


def _results(config: RunConfig, name: str, kind: DataKind) -> Iterator[str]:
    """Why each of the first records with media cannot be used; empty for one that can."""
    found = quick_check(config, name, kind)
    if found.reading is None:
        return
    columns = found.reading.columns
    for row in found.rows:
        if not any(cell_of(row, columns, column) for column in KINDS):
            continue
        try:
            conversation = add_media(found.reading.align(row), row, columns, media_dir(config))
            for medium in conversation.media:
                check_medium(medium)
        except BadExample as error:
            yield str(error)
        else:
            yield ""
