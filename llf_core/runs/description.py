"""Where a run runs, what it trains and which servers load its result, in the same words in all views."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llf_core.config.sections import STRATEGIES
from llf_core.runs.checkpoints import has_weights
from llf_core.runs.config_file import run_config
from llf_core.runs.parameter_grid import parameter_grid
from llf_core.runs.status import effective_status, read_status
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from llf_core.config import RunConfig
    from llf_core.runs.folder import RunFolder

PLACE_KEYS = ("launch", "launch_target", "num_processes", "num_nodes", "strategy")


def place_text(config: Mapping[str, object], mirror: Mapping[str, object] | None) -> str:
    """Where a run runs and in how many processes: `box, 2 processes (DDP)`; empty for one process of this machine."""
    launch, target = str(config.get("launch") or "local"), config.get("launch_target")
    each, machines = _number(config.get("num_processes")), _number(config.get("num_nodes"))
    parts = []
    if mirror is not None:
        parts.append(str(mirror.get("host")))
    elif launch not in {"local", "torchrun"}:
        parts.append(f"{launch} {target}" if target else launch)
    if machines > 1:
        parts.append(f"{machines} machines")
    if each * machines > 1:
        strategy = str(config.get("strategy") or "ddp")
        label = STRATEGIES[strategy].label if strategy in STRATEGIES else strategy
        parts.append(f"{each * machines} processes ({label})")
    return ", ".join(parts)


def _number(value: object) -> int:
    text = str(value)
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 5 else 1  # noqa: PLR2004 - at most 1,024


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
