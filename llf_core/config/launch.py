"""Launch of the training process."""

from __future__ import annotations

from llf_core.config.option import Section, option


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
    num_processes: int = option(
        1,
        label="Processes",
        help="Number of processes that train together on this machine, each with a share of every batch (torchrun, "
        "DDP). Usual: one per GPU.",
        minimum=1,
        maximum=1024,
    )
