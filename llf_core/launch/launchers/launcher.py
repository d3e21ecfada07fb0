"""Base of the launchers, and this machine: a detached supervisor process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llf_core.launch.environment import gpu_count
from llf_core.launch.local_process import start_supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llf_core.config.values import ConfigValues
    from llf_core.runs import RunFolder

    Start = Callable[[RunFolder, Mapping[str, str], Sequence[str] | None], None]


@dataclass(frozen=True, kw_only=True)
class Launcher:
    """A place where a run runs.

    Attributes:
        name: value of the key `launch`.
        summary: one sentence: what it starts and needs.
        unavailable: why a config cannot be started there, as a sentence; None if it can. For a config that selects
            another launcher it says only what this machine lacks, in milliseconds, since a form asks at each edit.
        target: default of `launch_target`, for the empty field of a form.
        start: starts the supervisor of a run in the state `created` and returns once it has registered itself or waits
            for its turn elsewhere. It gets the folder, environment variables that are not stored, and a command that
            replaces the trainer, or None. It raises a RuntimeError with the reason, which is the run's too.
    """

    name: str
    label: str
    summary: str
    unavailable: Callable[[ConfigValues], str | None]
    start: Start
    target: str = ""

    @property
    def line(self) -> str:
        """Label and summary, for a list that a person chooses from."""
        return f"{self.label}: {self.summary}"


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
