"""Messages in the form: level, sentence, and labels of fixes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from llf_core.config import Problem


@dataclass(frozen=True)
class Message:
    """A level, a sentence and its fixes, beside a field or below Start.

    Attributes:
        level: an error disables Start, a warning has a cost, a note informs.
        text: one or two sentences; text in backticks is code. Never HTML.
        fixes: label of each button, and the values it sets.
        copy: command that a button copies; empty for no button.
    """

    level: Literal["error", "warning", "note"]
    text: str
    fixes: tuple[tuple[str, Mapping[str, object]], ...] = field(default=())
    copy: str = ""

    @classmethod
    def from_problem(cls, problem: Problem, *, with_line: bool = False) -> Message:
        """Convert a problem of the config, with its fixes as buttons."""
        text = problem.message
        if with_line and problem.line:
            text = f"Line {problem.line}: {text}"
        return cls(problem.severity, text, tuple((fix.label, fix.changes) for fix in problem.fixes))

    def json(self) -> dict[str, object]:
        """The message for the front end, which sends back the index of a fix; its values stay in the kernel."""
        return {
            "level": self.level,
            "text": self.text,
            "fixes": [label for label, _ in self.fixes],
            "copy": self.copy,
        }


def messages_json(messages: Iterable[Message]) -> list[dict[str, object]]:
    """Several messages for the front end, which sends back their index with a click."""
    return [message.json() for message in messages]
