"""Answers to `/v1/completions`: events of replies as chunks of a stream, or as one answer."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any

from llf_core.chat.events import Failed, Finished, Piece
from llf_core.chat.server.logprobs import completion_logprobs
from llf_core.chat.server.replies import CANCELLED
from llf_core.chat.server.usage import usage_of

if TYPE_CHECKING:
    from llf_core.chat.events import Event, Token
    from llf_core.chat.server.completion_call import CompletionCall


class CompletionReply:
    """Turns events into OpenAI's format."""

    def __init__(self, call: CompletionCall) -> None:
        self._call = call
        self._logprobs = call.requests[0].logprobs
        self._head = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": call.model,
        }
        self._texts: list[list[str]] = [[] for _ in call.requests]
        self._tokens: list[list[Token]] = [[] for _ in call.requests]
        self._offsets = [0] * len(call.requests)
        self._finished: dict[int, Finished] = {}
        self.failure: Failed | None = None
        """The failure of a reply; None while there is none."""

    def take(self, number: int, event: Event) -> bool:
        """Collect an event of a call without a stream; False, since a text never cancels its reply."""
        if isinstance(event, Failed):
            self.failure = self.failure or event
        elif isinstance(event, Finished) and event.reason == "cancelled":
            self.failure = self.failure or CANCELLED
        elif isinstance(event, Finished):
            self._finished[number] = event
        elif isinstance(event, Piece):
            self._texts[number].append(event.text)
            self._tokens[number] += event.tokens
        return False

    def chunks(self, number: int, event: Event) -> tuple[list[dict[str, Any]], bool]:
        """Take an event of a stream; the chunks to send, and False, see `take`."""
        self.take(number, event)
        chunks = []
        if isinstance(event, Piece) and (event.text or event.tokens):
            chunks.append(self._chunk([self._choice(number, event.text, list(event.tokens), None)]))
        elif isinstance(event, Finished) and number in self._finished:
            chunks.append(self._chunk([self._choice(number, "", [], event.reason)]))
        return chunks, False

    def last_chunk(self) -> dict[str, Any] | None:
        """The chunk with the numbers of tokens, if the client asked for it by `stream_options`."""
        return self._chunk([]) | {"usage": self._usage()} if self._call.include_usage else None

    def whole(self) -> dict[str, Any]:
        """The answer to a call without a stream."""
        choices = [
            self._choice(number, "".join(text), self._tokens[number], self._finished[number].reason)
            for number, text in enumerate(self._texts)
        ]
        return self._head | {"choices": choices, "usage": self._usage()}

    def _chunk(self, choices: list[dict[str, object]]) -> dict[str, object]:
        return self._head | {"choices": choices} | ({"usage": None} if self._call.include_usage else {})

    def _choice(self, number: int, text: str, tokens: list[Token], reason: str | None) -> dict[str, object]:
        logprobs = None
        if self._logprobs and (tokens or reason is None):
            logprobs = completion_logprobs(tokens, self._offsets[number])
            self._offsets[number] += sum(len(token.text) for token in tokens)
        return {"index": number, "text": text, "logprobs": logprobs, "finish_reason": reason}

    def _usage(self) -> dict[str, object]:
        return usage_of(self._finished, len(self._call.requests) // self._call.prompts)
