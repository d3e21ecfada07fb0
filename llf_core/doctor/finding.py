from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Finding:
    """A problem of a run.

    Attributes:
        rule: name of the rule; each rule is reported once per attempt.
        change: for the live run, see `llf_core.runs.change_journal.check_changes`.
        config: for the next run's config.
        until: step from which on it no longer applies; None if it stays.
        outcome: what it says of the result if the run ends now, in sentences.
    """

    rule: str
    message: str
    fix: str
    change: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    until: int | None = None
    outcome: str = ""

    def event(self) -> dict[str, Any]:
        """Fields of the `finding` event: `rule`, `message`, `fix`; `change`, `config` and `until` where not empty."""
        optional = {"change": self.change, "config": self.config, "until": self.until}
        more = {name: value for name, value in optional.items() if value}
        return {"rule": self.rule, "message": self.message, "fix": self.fix, **more}
