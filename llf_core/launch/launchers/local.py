"""This machine: a detached supervisor process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.launch.detach import start_supervisor
from llf_core.launch.environment import gpu_count
from llf_core.launch.launchers.launcher import Launcher

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llf_core.config.values import ConfigValues
    from llf_core.runs import RunFolder


def _unavailable(config: ConfigValues) -> str | None:
    if config.launch.launch != LOCAL.name:
        return None
    if config.launch.launch_target is not None:
        return (
            f"`launch_target` is {config.launch.launch_target!r}, but `launch: local` has no target. Remove it, or set "
            "`launch` to where the target is."
        )
    return too_few_gpus(config)


def too_few_gpus(config: ConfigValues) -> str | None:
    """Why a machine has too few GPUs for the processes of a config; None if it has enough or none."""
    processes, gpus = config.launch.num_processes, gpu_count()
    if processes > 1 and gpus and processes > gpus and not config.training.use_cpu:
        return (
            f"`num_processes` is {processes}, and this machine has {gpus} GPU{'s' if gpus > 1 else ''}, one for each "
            f"process. Set num_processes: {gpus}, or use_cpu: true."
        )
    return None


def _start(folder: RunFolder, env: Mapping[str, str], command: Sequence[str] | None) -> None:
    start_supervisor(folder, env, command)


LOCAL = Launcher(
    name="local",
    label="This machine",
    summary="Processes of this machine; with several, torchrun starts and ends them together.",
    unavailable=_unavailable,
    start=_start,
)
