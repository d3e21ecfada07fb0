"""Requests to `/v1/completions`, and their answers: a stream of chunks, or one answer."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from llf_core.chat.events import Failed, Finished, Piece
from llf_core.chat.request import MAX_TOP_LOGPROBS, ChatRequest, RequestError
from llf_core.chat.server.api_error import ApiError, invalid
from llf_core.chat.server.replies import CANCELLED
from llf_core.chat.server.reply_fields import completion_logprobs, usage_of
from llf_core.chat.server.request_body import Fields
from llf_core.chat.server.sampling_fields import (
    UNSUPPORTED,
    choices_of,
    ignore,
    of_request,
    sampling_of,
    stops_of,
    stream_of,
    with_seed,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.chat.events import Event, Token

DEFAULT_MAX_TOKENS = 16
"""As in OpenAI's API."""
MAX_REPLIES = 128
"""Maximum number of prompts times `n`."""


@dataclass(frozen=True)
class CompletionCall:
    """A request to `/v1/completions`.

    Attributes:
        requests: all choices of the first prompt, then those of the next.
        include_usage: whether the stream ends with the numbers of tokens.
    """

    model: str
    requests: tuple[ChatRequest, ...]
    prompts: int
    stream: bool
    include_usage: bool


def read_completion_call(body: Mapping[str, object]) -> CompletionCall:
    """Read a request; `ApiError` if a field is invalid, unknown or not supported."""
    fields = Fields(dict(body))
    model = fields.required("model", fields.text("model"), "the name of a model; /v1/models lists them")
    prompts = _prompts(fields)
    if fields.flag("echo"):
        raise ApiError(
            400,
            "echo is true. Expected false: the reply holds the new text only; put it after the prompt yourself.",
            param="echo",
            code="unsupported_parameter",
        )
    count, best_of = choices_of(fields), fields.integer("best_of")
    if best_of not in (None, count):
        raise invalid("best_of", best_of, f"the value of n, {count}, or none: choose one of the n replies yourself")
    if len(prompts) * count > MAX_REPLIES:
        raise ApiError(
            400,
            f"{len(prompts)} prompts with n {count} ask for {len(prompts) * count} replies. Expected at most "
            f"{MAX_REPLIES}.",
            param="prompt",
        )
    logprobs = fields.integer("logprobs", 0, MAX_TOP_LOGPROBS)
    max_tokens = fields.integer("max_tokens", 1)
    sampling, stops = sampling_of(fields), stops_of(fields)
    stream, include_usage = stream_of(fields)
    ignore(fields)
    fields.finish(UNSUPPORTED)
    try:
        request = ChatRequest(
            prompt="",
            sampling=sampling,
            max_tokens=DEFAULT_MAX_TOKENS if max_tokens is None else max_tokens,
            stop=stops,
            logprobs=logprobs is not None,
            top_logprobs=logprobs or 0,
        )
    except RequestError as error:
        raise of_request(error) from None
    requests = tuple(
        replace(request, prompt=prompt, sampling=with_seed(sampling, one)) for prompt in prompts for one in range(count)
    )
    return CompletionCall(model, requests, len(prompts), stream, include_usage)


def _prompts(fields: Fields) -> list[str]:
    given = fields.raw("prompt")
    expected = "text or a list of texts"
    prompts = [given] if isinstance(given, str) else given
    if given is None or given == []:
        fields.required("prompt", given, expected)
    if not isinstance(prompts, list) or len(prompts) > MAX_REPLIES or not all(isinstance(one, str) for one in prompts):
        raise invalid("prompt", given, f"{expected}, at most {MAX_REPLIES}; token ids are not supported")
    return prompts


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
