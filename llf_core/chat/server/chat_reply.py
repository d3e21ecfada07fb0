"""Answers to `/v1/chat/completions`: events of replies as chunks of a stream, or as one answer."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from llf_core.chat.events import Failed, Finished, Piece, ToolCallPiece
from llf_core.chat.server.logprobs import chat_logprobs
from llf_core.chat.server.replies import CANCELLED
from llf_core.chat.server.tool_choice import ForcedCall
from llf_core.chat.server.usage import usage_of

if TYPE_CHECKING:
    from llf_core.chat.events import Event, Token
    from llf_core.chat.server.chat_call import ChatCall


@dataclass
class _Choice:
    forced: ForcedCall | None
    content: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: dict[int, dict[str, Any]] = field(default_factory=dict)
    tokens: list[Token] = field(default_factory=list)
    begun: bool = False
    cut: bool = False
    """Whether it was cancelled after its first tool call."""


class ChatReply:
    """Turns events into OpenAI's format."""

    def __init__(self, call: ChatCall) -> None:
        self._call = call
        self._logprobs = call.requests[0].logprobs
        self._head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": call.model}
        self._choices = [_Choice(ForcedCall(call.choice) if call.choice.is_forced else None) for _ in call.requests]
        self._finished: dict[int, Finished] = {}
        self.failure: Failed | None = None
        """The failure of a reply; None while there is none."""

    def take(self, number: int, event: Event) -> bool:
        """Collect an event of a call without a stream; whether to cancel the reply, which has made its only call."""
        return self._taken(number, event)[1]

    def chunks(self, number: int, event: Event) -> tuple[list[dict[str, Any]], bool]:
        """Take an event of a stream; the chunks to send, and whether to cancel the reply, see `take`."""
        events, cancels = self._taken(number, event)
        choice = self._choices[number]
        chunks: list[dict[str, object]] = []
        for one in events:
            if isinstance(one, Finished):
                self._begin(number, choice, chunks)
                chunks.append(self._chunk(number, {}, finish_reason=one.reason))
            elif isinstance(one, Piece | ToolCallPiece):
                self._begin(number, choice, chunks)
                tokens = one.tokens if isinstance(one, Piece) and one.kind == "content" else ()
                delta = _delta(one)
                if delta or tokens:
                    chunks.append(self._chunk(number, delta, tokens))
        return chunks, cancels

    def last_chunk(self) -> dict[str, Any] | None:
        """The chunk with the numbers of tokens, if the client asked for it by `stream_options`."""
        if not self._call.include_usage:
            return None
        usage = usage_of(self._finished, len(self._choices))
        return self._head | {"object": "chat.completion.chunk", "choices": [], "usage": usage}

    def whole(self) -> dict[str, Any]:
        """The answer to a call without a stream."""
        return self._head | {
            "object": "chat.completion",
            "choices": [self._whole_choice(number, choice) for number, choice in enumerate(self._choices)],
            "usage": usage_of(self._finished, len(self._choices)),
        }

    def _taken(self, number: int, event: Event) -> tuple[list[Event], bool]:
        """Keep an event; the events in its place, and whether to cancel the reply."""
        choice = self._choices[number]
        events = [event] if choice.forced is None else choice.forced.events(event)
        kept: list[Event] = []
        cancels = False
        for one in events:
            if choice.cut and not isinstance(one, Finished | Failed):
                continue
            if self._call.one_call and isinstance(one, ToolCallPiece) and one.index:
                choice.cut = cancels = True
                continue
            kept.append(self._keep(number, choice, one))
        return kept, cancels

    def _keep(self, number: int, choice: _Choice, event: Event) -> Event:
        if isinstance(event, Failed):
            self.failure = self.failure or event
        elif isinstance(event, Finished):
            chosen = choice.calls and event.reason == "stop" and not self._call.choice.named
            if choice.cut or chosen:
                event = replace(event, reason="tool_calls")
            if event.reason == "cancelled":
                self.failure = self.failure or CANCELLED
                return CANCELLED
            self._finished[number] = event
        elif isinstance(event, ToolCallPiece):
            call = choice.calls.setdefault(event.index, {"id": event.id, "name": event.name, "arguments": []})
            call["arguments"].append(event.arguments)
        elif isinstance(event, Piece):
            (choice.content if event.kind == "content" else choice.reasoning).append(event.text)
            if event.kind == "content":
                choice.tokens += event.tokens
        return event

    def _begin(self, number: int, choice: _Choice, chunks: list[dict[str, object]]) -> None:
        """Add the chunk with the role, once."""
        if not choice.begun:
            choice.begun = True
            chunks.append(self._chunk(number, {"role": "assistant", "content": ""}))

    def _chunk(
        self, number: int, delta: dict[str, object], tokens: tuple[Token, ...] = (), finish_reason: str | None = None
    ) -> dict[str, object]:
        logprobs = {"content": chat_logprobs(tokens)} if self._logprobs and tokens else None
        choice = {"index": number, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        usage = {"usage": None} if self._call.include_usage else {}
        return self._head | {"object": "chat.completion.chunk", "choices": [choice]} | usage

    def _whole_choice(self, number: int, choice: _Choice) -> dict[str, object]:
        text, reasoning = "".join(choice.content), "".join(choice.reasoning)
        message: dict[str, object] = {"role": "assistant", "content": text if text or not choice.calls else None}
        message["refusal"] = None
        if reasoning:
            message["reasoning_content"] = reasoning
        if choice.calls:
            message["tool_calls"] = [
                {
                    "id": call["id"],
                    "type": "function",
                    "function": {"name": call["name"], "arguments": "".join(call["arguments"])},
                }
                for _, call in sorted(choice.calls.items())
            ]
        logprobs = {"content": chat_logprobs(choice.tokens), "refusal": None} if self._logprobs else None
        reason = self._finished[number].reason
        return {"index": number, "message": message, "logprobs": logprobs, "finish_reason": reason}


def _delta(event: Piece | ToolCallPiece) -> dict[str, object]:
    """What a part adds to the message."""
    if isinstance(event, Piece):
        name = "content" if event.kind == "content" else "reasoning_content"
        return {name: event.text} if event.text else {}
    function: dict[str, object] = {"arguments": event.arguments}
    call: dict[str, object] = {"index": event.index}
    if event.id:
        call |= {"id": event.id, "type": "function"}
        function = {"name": event.name} | function
    return {"tool_calls": [call | {"function": function}]}
