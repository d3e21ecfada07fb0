from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator

from llf_core.config.option import Section, option
from llf_core.config.strategies import STRATEGIES

_TARGET = re.compile(r"[\w\[/][\w.@:,\[\]/~+=%-]*", re.ASCII)


def _target(value: str) -> str:
    if not _TARGET.fullmatch(value) or len(value) > 255:  # noqa: PLR2004 - the longest name of a host
        raise ValueError("Expected one word of letters, digits and . @ : , [ ] / ~ + = % _ -, not starting with -.")
    return value


class Launch(Section):
    """Launch of the training process."""

    threads: int | None = option(
        None,
        unset="one per core",
        label="CPU threads",
        help="Number of CPU threads of each process. Default: one per core, shared by the processes.",
        minimum=1,
        maximum=1024,
    )
    launch: Literal["local", "torchrun", "slurm", "ray", "ssh"] = option(
        "local",
        level="basic",
        choices=("local", "torchrun", "slurm", "ray", "ssh"),
        label="Run on",
        help="Where the run runs: `local` is this machine, `torchrun` several machines, `slurm` and `ray` a "
        "cluster, which share the folder of runs, and `ssh` another host.",
    )
    launch_target: Annotated[str, AfterValidator(_target)] | None = option(
        None,
        level="basic",
        unset="none",
        label="Target",
        help="What `launch` starts the run on: HOST:PORT of the first machine for torchrun, a partition for slurm, "
        "HOST:PORT of the head for ray, [USER@]HOST[:PORT] for ssh.",
    )
    num_processes: int = option(
        1,
        level="basic",
        label="Processes",
        help="Number of processes that train together on each machine, each with a share of every batch (torchrun). "
        "Usual: one per GPU.",
        minimum=1,
        maximum=1024,
    )
    num_nodes: int = option(
        1,
        level="basic",
        label="Machines",
        help="Number of machines that train together, with as many processes each (`launch: torchrun`).",
        minimum=1,
        maximum=1024,
    )
    strategy: Literal["ddp", "fsdp2", "zero2", "hsdp"] = option(
        "ddp",
        level="basic",
        label="Strategy",
        help="What each process has: `ddp` the whole model, `fsdp2` its part (ZeRO-3), `zero2` its part and the layers "
        "gathered before the backward pass, `hsdp` its part within a machine.",
        choices=tuple(STRATEGIES),
    )
    sync_to: str | None = option(
        None,
        unset="not copied",
        label="Copy to",
        help="Folder, or address at s3://, gs://, hf://buckets/ or ssh://, that receives after each checkpoint what a "
        "resume on another machine needs.",
        path="folder",
    )

    @property
    def ranks(self) -> int:
        """Number of processes that train together, on all machines."""
        return self.num_processes * self.num_nodes
