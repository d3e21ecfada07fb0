"""Pushes the result of a run to a hub (`push_to_hub`), when the run has finished."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.models.push import commit_message, find_destination, push_folder
from llf_core.runs import read_meta
from llf_core.runs.creation import slug

if TYPE_CHECKING:
    from llf_core.config import RunConfig
    from llf_core.models.push import Destination
    from llf_core.runs import RunFolder

KEY = "push_to_hub"


def push_destination(config: RunConfig, folder: RunFolder) -> Destination | None:
    """Where the result of a run is pushed to, checked before the first step; None without `push_to_hub`.

    Without `hub_model_id` the repository has the run's name, as a file name.
    """
    training = config.training
    if not training.push_to_hub:
        return None
    name = training.hub_model_id or slug(str(read_meta(folder).get("name") or folder.id))
    return find_destination(name, private=training.hub_private_repo, revision=training.hub_revision)


def push_result(folder: RunFolder, to: Destination) -> str:
    """Push `output/` to a hub."""
    return f"Pushed the result to {push_folder(folder.output, to, commit_message(['the result', folder.id]))}."
