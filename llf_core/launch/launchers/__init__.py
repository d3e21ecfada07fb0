"""Where a run runs: the launchers that the key `launch` names, and texts such as `2 processes` or `4 gpus`."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING

from llf_core.config import ConfigError, Problem
from llf_core.launch.environment import gpu_count
from llf_core.launch.launchers.launcher import LOCAL
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
_COUNT = re.compile(r"(?P<count>[0-9]{1,4}) *(?P<what>process|processes|gpu|gpus)")
_PLACE = re.compile(r"(?P<name>[a-z]+)(?:(?:://|:)(?P<target>.+))?")


def launch_problem(config: ConfigValues) -> Problem | None:
    """Why a config cannot be started where it says; None if it can."""
    reason = LAUNCHERS[config.launch.launch].unavailable(config)
    keys = ("launch", "launch_target", "num_processes", "num_nodes")
    return None if reason is None else Problem("unresolved", "launch", config.launch.launch, reason, keys=keys)


def start_run(folder: RunFolder, env: Mapping[str, str], command: Sequence[str] | None = None) -> None:
    """Start the supervisor of a run's current attempt where its config says; see `Launcher.start`."""
    name = read_config(folder.config).get("launch", LOCAL.name)
    LAUNCHERS.get(str(name), LOCAL).start(folder, env, command)


def keys_of_place(on: str) -> Mapping[str, object]:
    """Config keys for a text: a number of processes or GPUs of this machine, or a launcher.

    Args:
        on: `N processes`, `N gpus`, or the name of a launcher, with its target after a colon.

    Raises:
        ConfigError: it is none of these, or there are fewer GPUs.
    """
    counted = _COUNT.fullmatch(on.strip().lower())
    if counted is not None and int(counted["count"]) > 0:
        count, of_gpus = int(counted["count"]), counted["what"].startswith("gpu")
        if of_gpus and (there := gpu_count()) is not None and count > there:
            raise _problem(on, f"This machine has {there} NVIDIA GPU{'' if there == 1 else 's'}.")
        keys: dict[str, object] = {"launch": "local", "launch_target": None, "num_processes": count}
        return keys | ({"use_cpu": False} if of_gpus else {})
    place = _PLACE.fullmatch(on.strip())
    if place is not None and place["name"] in LAUNCHERS:
        return {"launch": place["name"], "launch_target": place["target"]}
    names = ", ".join(f"`{name}`" for name in LAUNCHERS)
    raise _problem(
        on, f"Expected `2 processes`, `4 gpus`, or one of {names}, with a target after a colon where it has one."
    )


def place_of(config: ConfigValues) -> str:
    """The `on` text of a config; without the number of processes if it is not this machine."""
    launch = config.launch
    if launch.launch == LOCAL.name:
        return f"{launch.num_processes} process{'' if launch.num_processes == 1 else 'es'}"
    if launch.launch_target is None:
        return launch.launch
    return f"{launch.launch}:{'//' if launch.launch == SSH.name else ''}{launch.launch_target}"


def _problem(on: str, sentence: str) -> ConfigError:
    return ConfigError((Problem("invalid", "launch", on, f"`on` is {on!r}. {sentence}"),))
