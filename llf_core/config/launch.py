"""How the trainer's process starts."""

from __future__ import annotations

from llf_core.config.option import Section, option


class Launch(Section):
    """How the trainer's process starts."""

    threads: int | None = option(
        None,
        unset="one per core",
        label="CPU threads",
        help="Number of CPU threads. Default: one per core.",
        minimum=1,
        maximum=1024,
    )
