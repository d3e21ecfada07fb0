"""Where a run runs: the launchers that the key `launch` names."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from llf_core.config import Problem
from llf_core.launch.launchers.local import LOCAL
from llf_core.launch.launchers.ray import RAY
from llf_core.launch.launchers.slurm import SLURM
from llf_core.launch.launchers.ssh import SSH
from llf_core.launch.launchers.torchrun import TORCHRUN
from llf_core.runs.config_file import read_config

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llf_core.config.values import ConfigValues
    from llf_core.launch.launchers.launcher import Launcher
    from llf_core.runs import RunFolder

LAUNCHERS: Mapping[str, Launcher] = MappingProxyType({one.name: one for one in (LOCAL, TORCHRUN, SLURM, RAY, SSH)})
"""Launchers by name, in the order of a form."""


def launch_problem(config: ConfigValues) -> Problem | None:
    """Why a config cannot be started where it says; None if it can."""
    reason = LAUNCHERS[config.launch.launch].unavailable(config)
    keys = ("launch", "launch_target", "num_processes", "num_nodes")
    return None if reason is None else Problem("unresolved", "launch", config.launch.launch, reason, keys=keys)


def start_run(folder: RunFolder, env: Mapping[str, str], command: Sequence[str] | None = None) -> None:
    """Start the supervisor of a run's current attempt where its config says; see `Launcher.start`."""
    name = read_config(folder.config).get("launch", LOCAL.name)
    LAUNCHERS.get(str(name), LOCAL).start(folder, env, command)
