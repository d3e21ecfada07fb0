"""Base of the launchers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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
