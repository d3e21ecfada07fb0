"""Events of a reply, in order: `Started`, pieces and tool calls, then `Finished` or `Failed`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from llf_core.generation.replies.parts import Alternative, Piece, Token, ToolCallPiece

__all__ = [
    "Alternative",
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
