"""What a run trains and which servers load its result, in the same words for monitor, sidebar and terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llf_core.runs.checkpoints import has_weights
from llf_core.runs.config_file import run_config
from llf_core.runs.parameter_grid import parameter_grid
from llf_core.runs.status import effective_status, read_status
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from llf_core.config import RunConfig
    from llf_core.runs.folder import RunFolder


def trained_json(
    folder: RunFolder, event: Mapping[str, object] | None, config: RunConfig | None = None
) -> dict[str, Any]:
    """What a run trains, as JSON, from its config and last event `model`.

    Returns:
        `grid` (see `parameter_grid`) and `servers` (see `adapter_servers.Servers.json`), each None if unknown;
        `servers` also for a run that has ended without a result or a checkpoint.
    """
    from llf_core.config.adapter_servers import named_type, servers_of_run

    found = event or {}
    try:
        servers = (
            None
            if effective_status(read_status(folder)).has_ended and not has_weights(folder)
            else servers_of_run(
                config or run_config(folder), folder.output, folder.home, named_type(found.get("model_type"))
            )
        )
    except UserError:  # a config that is no longer valid is no reason not to show the run
        servers = None
    return {
        "grid": parameter_grid(found.get("map"), found.get("parameters"), found.get("trainable")),
        "servers": None if servers is None else servers.json(),
    }


def last_model_event(events: Iterable[Mapping[str, object]]) -> Mapping[str, Any] | None:
    """The last event `model` among some."""
    return next((event for event in reversed(list(events)) if event.get("type") == "model"), None)
