"""Replies while they are written, and as the page shows them."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from llf_core.chat.kept_examples import DEFAULT, KINDS, Kind
from llf_core.chat.request import Failed, Finished, Piece, Started, ToolCallPiece
from llf_core.config.number_format import with_unit
from llf_core.runs.formatting import duration
from llf_core.runs.jsonl import is_count, is_finite_number

if TYPE_CHECKING:
    from llf_core.chat.conversation import ChatMessage
    from llf_core.chat.request import Event, FailureKind
    from llf_core.chat.service import Ticket

State = Literal["waiting", "answering", "done", "failed"]
INTERRUPTED = "This reply is incomplete: its kernel ended while it was written."
NOTES = {"length": "The reply was cut at the maximum number of tokens.", "cancelled": "Stopped."}
FIXES: dict[FailureKind, list[dict[str, str]]] = {
    "too_long": [
        {"action": "shorten", "label": "Leave out the oldest turns"},
        {"action": "edit", "label": "Edit the question"},
    ],
    "invalid": [{"action": "edit", "label": "Edit the question"}],
    "untrusted": [],
}
ASK_AGAIN = [{"action": "again", "label": "Ask again"}]
GO_ON = "The model has made {} rounds of tool calls for this question and asks for another one. Continue?"
CONTINUE = [{"action": "continue", "label": "Continue"}]

_LABELS: dict[Kind, str] = {"examples": "Kept as an example", "pairs": "Preferred, kept as a pair", "ratings": "Rated"}


@dataclass
class Writing:
    """A reply that is being written.

    Attributes:
        ticket: its request; None until it was submitted.
        sequence: number of updates that the page was sent.
        calls: its tool calls so far, in OpenAI's form.
        tokens: text, log-probability and likely alternatives of each token so far.
        usage: numbers and times of the reply, or its `error`.
        reason: why it ended; empty while it is being written.
        left_out: number of the oldest turns that were not sent.
        saved_at: when it was last saved, by the monotonic clock.
    """

    id: str
    model: str
    ticket: Ticket | None = None
    sequence: int = 0
    state: State = "waiting"
    text: str = ""
    thinking: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    tokens: list[Any] = field(default_factory=list)
    usage: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    left_out: int = 0
    saved_at: float = field(default_factory=time.monotonic)
    _sent: tuple[int, int, int] = (0, 0, 0)

    def take(self, event: Event) -> bool:
        """Add an event of the engine, and return whether it is the last."""
        if isinstance(event, Started):
            return False
        if isinstance(event, Piece):
            self._take_piece(event)
        elif isinstance(event, ToolCallPiece):
            self._take_call(event)
        elif isinstance(event, Finished):
            self.usage = {name: value for name, value in asdict(event).items() if name != "reason"}
            self.reason, self.state = event.reason, "done"
        elif isinstance(event, Failed):
            self.usage, self.reason, self.state = {"error": asdict(event)}, "failed", "failed"
        return bool(self.reason)

    def update(self) -> dict[str, Any] | None:
        """What is new since the last update; None for nothing, or only tool calls, which the complete reply has."""
        text, thinking, tokens = self._sent
        self._sent = len(self.text), len(self.thinking), len(self.tokens)
        if self._sent == (text, thinking, tokens):
            return None
        self.sequence += 1
        return {
            "id": self.id,
            "sequence": self.sequence,
            "state": "answering",
            "text": self.text[text:],
            "thinking": self.thinking[thinking:],
            "tokens": self.tokens[tokens:],
        }

    def fields(self) -> dict[str, Any]:
        """The fields of its message in the conversation."""
        return {
            "content": self.text,
            "reasoning": self.thinking,
            "tool_calls": self.calls,
            "usage": {**self.usage, **({"left_out": self.left_out} if self.left_out else {})},
            "finish_reason": self.reason,
        }

    def _take_piece(self, piece: Piece) -> None:
        self.state = "answering"
        if piece.kind == "reasoning":
            self.thinking += piece.text
            return
        self.text += piece.text
        self.tokens += [[one.text, one.logprob, [[top.text, top.logprob] for top in one.top]] for one in piece.tokens]

    def _take_call(self, piece: ToolCallPiece) -> None:
        self.state = "answering"
        while len(self.calls) <= piece.index:
            self.calls.append({"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
        call = self.calls[piece.index]
        call["id"] = call["id"] or piece.id
        call["function"]["name"] = call["function"]["name"] or piece.name
        call["function"]["arguments"] += piece.arguments


def reply_json(  # noqa: PLR0913, PLR0917 - what a page shows of a reply
    message: ChatMessage,
    writing: Writing | None,
    version: tuple[int, int],
    tokens: list[Any],
    calls: list[dict[str, Any]],
    rounds: int,
) -> dict[str, Any]:
    """A reply for the page. One without a finish reason that nobody writes was interrupted by the end of its kernel.

    Args:
        writing: what has been written of it so far; None if it is not being written.
        version: its place among its versions, from 1, and their number.
        tokens: see `Writing.tokens`.
        calls: see `llf_widgets.chat.turns.Turn.calls`.
        rounds: number of rounds of calls so far, if the user is asked whether the model may go on; else 0.
    """
    error = message.usage.get("error")
    state: State = "failed" if message.finish_reason == "failed" else "done"
    note = NOTES.get(message.finish_reason, "" if message.finish_reason else INTERRUPTED)
    left_out = message.usage.get("left_out")  # anybody may have written the file
    if isinstance(left_out, int) and left_out > 0:
        note = f"{note} Left out: {with_unit(left_out, 'oldest turn')}.".strip()
    shown = {
        "id": message.id,
        "model": message.target,
        "sequence": 0,
        "state": state,
        "text": message.text(),
        "thinking": message.reasoning,
        "calls": calls,
        "tokens": tokens,
        "footer": footer(message.usage),
        "error": _error(error) if isinstance(error, dict) else None,
        "question": {"message": GO_ON.format(rounds), "fixes": CONTINUE} if rounds else None,
        "note": note,
        "version": list(version),
        "kept": kept_json(message),
    }
    if writing is not None:
        shown |= {
            "sequence": writing.sequence,
            "state": writing.state,
            "text": writing.text,
            "thinking": writing.thinking,
            "tokens": list(writing.tokens),
            "note": "",
        }
    return shown


def footer(usage: dict[str, Any]) -> str:
    """Number of tokens, speed and time to the first token of a reply; empty without a number of tokens.

    The speed is that after the first token, `(tokens - 1) / (seconds - first_token_seconds)`: the inverse of the time
    per output token (TPOT) of vLLM's benchmark, which does not depend on the length of the prompt.
    """
    found: list[Any] = [usage.get(name) for name in ("completion_tokens", "seconds", "first_token_seconds")]
    tokens, seconds, first = found
    if not is_count(tokens) or not tokens:
        return ""
    parts = [with_unit(tokens, "token")]
    if is_finite_number(seconds) and is_finite_number(first):
        if tokens > 1 and seconds > first:
            parts.append(f"{(tokens - 1) / (seconds - first):.1f} tokens/s")
        parts.append(f"first token after {duration(first) if first >= 60 else f'{first:.2f} s'}")  # noqa: PLR2004
    return ", ".join(parts)


def _error(given: dict[str, object]) -> dict[str, object]:
    sentences = [str(given.get(name) or "") for name in ("message", "what_to_do")]
    kind = given.get("kind", "engine")
    fixes = next((fixes for one, fixes in FIXES.items() if one == kind), ASK_AGAIN)
    return {"message": " ".join(filter(None, sentences)), "fixes": fixes}


def kept_json(message: ChatMessage) -> list[dict[str, str]]:
    """The data sets that keep a reply: `kind`, `label`, and the corrected `text`, empty without one."""
    found = []
    for kind in KINDS:
        name = f"{DEFAULT}-{kind}.jsonl"
        if name in message.kept:
            rating = f" {message.rating}" if kind == "ratings" else ""
            text = message.corrected.get(name, "")
            found.append({"kind": kind, "label": f"{_LABELS[kind]}{rating}", "text": text})
    return found
