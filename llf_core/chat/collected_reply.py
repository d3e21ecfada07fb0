"""Collects the events of a reply."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from llf_core.chat.events import Failed, Finished, Piece, ToolCallPiece
from llf_core.generation.replies.reply_parser import text_with_calls

if TYPE_CHECKING:
    from llf_core.chat.events import Event


class CollectedReply:
    """A reply as far as its events have come."""

    def __init__(self) -> None:
        self.content = self.reasoning = ""
        self.finished: Finished | None = None
        self.failed: Failed | None = None
        self._calls: dict[int, dict[str, str]] = {}

    def take(self, event: Event) -> bool:
        """Add an event; returns whether the reply has ended."""
        if isinstance(event, Piece):
            if event.kind == "reasoning":
                self.reasoning += event.text
            else:
                self.content += event.text
        elif isinstance(event, ToolCallPiece):
            call = self._calls.setdefault(event.index, {"id": "", "name": "", "arguments": ""})
            call["id"] += event.id
            call["name"] += event.name
            call["arguments"] += event.arguments
        elif isinstance(event, Finished):
            self.finished = event
        elif isinstance(event, Failed):
            self.failed = event
        return self.finished is not None or self.failed is not None

    @property
    def tool_calls(self) -> tuple[dict[str, Any], ...]:
        """The calls in OpenAI's format."""
        return tuple(
            {
                "id": call["id"],
                "type": "function",
                "function": {"name": call["name"], "arguments": call["arguments"]},
            }
            for _, call in sorted(self._calls.items())
        )

    @property
    def text(self) -> str:
        """Its text followed by its calls as JSON, as metrics compare it with the expected answer."""
        return text_with_calls(self.content, [call["function"] for call in self.tool_calls])

    def message_fields(self) -> dict[str, Any]:
        """Fields of a `ChatMessage` with the reply."""
        finished = asdict(self.finished) if self.finished is not None else {}
        reason = finished.pop("reason", "failed" if self.failed is not None else "")
        return {
            "content": self.content,
            "reasoning": self.reasoning,
            "tool_calls": self.tool_calls,
            "finish_reason": reason,
            "usage": finished,
        }
