"""What the doctor says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a run.

    Attributes:
        rule: its name; a run is told of each rule once an attempt.
        message: one sentence with the numbers.
        fix: what to do, one sentence.
        change: what may be changed in the live run at once, see `llf_core.runs.change_journal.check_changes`.
        config: what to change in the next run's config.
        until: the step with whose end it is over; None where it stays.
    """

    rule: str
    message: str
    fix: str
    change: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    until: int | None = None

    def event(self) -> dict[str, Any]:
        """The fields of its event; what is empty is left out."""
        optional = {"change": self.change, "config": self.config, "until": self.until}
        more = {name: value for name, value in optional.items() if value}
        return {"rule": self.rule, "message": self.message, "fix": self.fix, **more}
