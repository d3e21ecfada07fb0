"""Launch of the training process."""

from __future__ import annotations

from llf_core.config.option import Section, option


class Launch(Section):
    """Launch of the training process."""

    threads: int | None = option(
        None,
        unset="one per core",
        label="CPU threads",
        help="Number of CPU threads. Default: one per core.",
        minimum=1,
        maximum=1024,
    )
