"""Messages as the front end draws them: a level, a sentence, the labels of the fixes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from llf_core.config import Problem


@dataclass(frozen=True)
class Message:
    """A level, what is wrong, and what mends it.

    Attributes:
        level: an error stops Start, a warning costs something, a note informs.
        text: one or two sentences; parts between backticks are code. Never HTML.
        fixes: the label of each button, and the values it sets.
        copy: a command that a button copies; empty for no such button.
    """

    level: Literal["error", "warning", "note"]
    text: str
    fixes: tuple[tuple[str, Mapping[str, Any]], ...] = field(default=())
    copy: str = ""

    @classmethod
    def of(cls, problem: Problem, *, where: bool = False) -> Message:
        """A problem of the config; with `where`, its line of the text is named too."""
        text = problem.message
        if where and problem.line:
            text = f"Line {problem.line}: {text}"
        return cls(problem.severity, text, tuple((fix.label, fix.changes) for fix in problem.fixes))

    def wire(self) -> dict[str, Any]:
        """What is sent to the front end: the changes stay here."""
        return {
            "level": self.level,
            "text": self.text,
            "fixes": [label for label, _ in self.fixes],
            "copy": self.copy,
        }


def wire(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """Several messages as they are sent."""
    return [message.wire() for message in messages]
