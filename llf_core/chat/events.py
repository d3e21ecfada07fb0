"""Events of a reply, in order: `Started`, pieces and tool calls, then `Finished` or `Failed`; and their collection."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from llf_core.generation.replies.reply_parser import Alternative, Piece, Token, ToolCallPiece, text_with_calls

__all__ = [
    "Alternative",
    "CollectedReply",
    "Embedded",
    "Event",
    "Failed",
    "FailureKind",
    "FinishReason",
    "Finished",
    "Piece",
    "Started",
    "Token",
    "ToolCallPiece",
    "event_json",
    "read_event",
]

FinishReason = Literal["stop", "length", "tool_calls", "cancelled"]
FailureKind = Literal["invalid", "too_long", "busy", "model_gone", "out_of_memory", "untrusted", "engine"]


@dataclass(frozen=True)
class Started:
    """The prompt has been tokenized and is being read; `cached_tokens` of its tokens were in the cache."""

    prompt_tokens: int
    cached_tokens: int


@dataclass(frozen=True)
class Embedded:
    """The embedding of a prompt, before `Finished`: mean of the last hidden states `[hidden]`, scaled to length 1."""

    values: tuple[float, ...]


@dataclass(frozen=True)
class Finished:
    """The reply is complete.

    Attributes:
        reason: `stop` (end-of-sequence token or stop string), `length`, `tool_calls` or `cancelled`.
        completion_tokens: number of tokens of the reply, with the end-of-sequence token.
        first_token_seconds: time from the engine's receipt of the request to its first token, waiting included.
        seconds: time from the engine's receipt of the request to its last token.
    """

    reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    first_token_seconds: float
    seconds: float


@dataclass(frozen=True)
class Failed:
    """There is no reply, or it is incomplete; `what_to_do` is empty where the message says it."""

    kind: FailureKind
    message: str
    what_to_do: str = ""


Event = Started | Piece | ToolCallPiece | Embedded | Finished | Failed
_EVENTS = {one.__name__: one for one in (Started, Piece, ToolCallPiece, Embedded, Finished, Failed)}


def event_json(event: Event) -> dict[str, Any]:
    """An event as JSON, for a pipe or a page."""
    return {"event": type(event).__name__, **asdict(event)}


def read_event(given: dict[str, Any]) -> Event:
    """The event that `event_json` wrote."""
    values = dict(given)
    kind = _EVENTS[values.pop("event")]
    if kind is Piece:
        values["tokens"] = tuple(
            Token(**{**one, "top": tuple(Alternative(**other) for other in one["top"])}) for one in values["tokens"]
        )
    if kind is Embedded:
        values["values"] = tuple(values["values"])
    return kind(**values)


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
