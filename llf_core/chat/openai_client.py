"""Requests to a server with OpenAI's API, and the streams of its replies."""

from __future__ import annotations

import http.client
import json
import time
from typing import TYPE_CHECKING, Any

from llf_core.chat.events import Alternative, Failed, Finished, Piece, Started, Token, ToolCallPiece
from llf_core.chat.picture import with_checked_pictures
from llf_core.untrusted import brief

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llf_core.chat.events import Event
    from llf_core.chat.request import ChatRequest

ALL_TOKENS = -1
"""`top_k` for all tokens. Without one, these servers use that of the model's `generation_config.json`."""
UNKNOWN_TOKEN = -1
"""Id of a token in log-probabilities, which OpenAI's API lacks."""


def request_content(model: str, request: ChatRequest) -> dict[str, Any]:
    """A request to a model or adapter in OpenAI's format, with the further parameters that vLLM and SGLang share."""
    sampling = request.sampling
    content: dict[str, object] = {
        "model": model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k or ALL_TOKENS,
        "min_p": sampling.min_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "logit_bias": {str(token): bias for token, bias in sampling.logit_bias.items()} or None,
        "repetition_penalty": sampling.repetition_penalty,
        "seed": sampling.seed,
        "max_tokens": request.max_tokens,
        "stop": list(request.stop) or None,
    }
    if request.prompt is not None:
        content |= {"prompt": request.prompt, "logprobs": request.top_logprobs if request.logprobs else None}
    else:
        content |= {"messages": with_checked_pictures(request.messages), "tools": list(request.tools) or None}
        content |= {"chat_template_kwargs": request.template_options or None}
        if request.logprobs:
            content |= {"logprobs": True, "top_logprobs": request.top_logprobs}
        if request.continue_last:
            content |= {"continue_final_message": True, "add_generation_prompt": False}
    if request.json_schema is not None:
        content["response_format"] = (
            {"type": "json_schema", "json_schema": {"name": "reply", "schema": request.json_schema}}
            if request.json_schema
            else {"type": "json_object"}
        )
    return {name: value for name, value in content.items() if value is not None}


class ReplyReader:
    """Turns the chunks of a stream into events; `begun` is the `time.monotonic()` of the request."""

    def __init__(self, begun: float) -> None:
        self._begun, self._first = begun, 0.0
        self._started = False
        self._reason = "stop"
        self._usage: dict[str, Any] = {}

    def read(self, chunk: dict[str, Any]) -> Iterator[Event]:
        """Events of a chunk."""
        usage = chunk.get("usage")
        self._usage = usage if isinstance(usage, dict) else self._usage
        if not self._started:
            self._started = True
            yield Started(*self._prompt())
        for choice in chunk.get("choices", ())[:1]:
            delta = choice.get("delta") or {"content": choice.get("text")}
            self._reason = choice.get("finish_reason") or self._reason
            tokens = tuple(_tokens(choice.get("logprobs")))
            reasoning = delta.get("reasoning_content") or delta.get("reasoning") or ""
            if reasoning:
                yield self._timed(Piece(reasoning, "reasoning", tokens))
            if delta.get("content") or (tokens and not reasoning):  # text that is held back comes with later tokens
                yield self._timed(Piece(delta.get("content") or "", "content", () if reasoning else tokens))
            for call in delta.get("tool_calls") or ():
                function = call.get("function") or {}
                yield self._timed(
                    ToolCallPiece(
                        call.get("index", 0),
                        function.get("arguments") or "",
                        call.get("id") or "",
                        function.get("name") or "",
                    )
                )

    def finished(self, reason: str | None) -> Finished:
        """The last event; `reason` replaces the server's."""
        named = reason or (self._reason if self._reason in {"stop", "length", "tool_calls"} else "stop")
        prompt, cached = self._prompt()
        now = time.monotonic()
        return Finished(
            named,  # type: ignore[arg-type]  # one of the four
            prompt,
            _count(self._usage, "completion_tokens"),
            cached,
            (self._first or now) - self._begun,
            now - self._begun,
        )

    def _timed(self, event: Event) -> Event:
        self._first = self._first or time.monotonic()
        return event

    def _prompt(self) -> tuple[int, int]:
        return _count(self._usage, "prompt_tokens"), _count(self._usage.get("prompt_tokens_details"), "cached_tokens")


def _count(usage: object, name: str) -> int:
    found = usage.get(name) if isinstance(usage, dict) else None
    return found if isinstance(found, int) else 0


def _tokens(logprobs: dict[str, Any] | None) -> Iterator[Token]:
    """Tokens of a chunk with their log-probabilities, in either of OpenAI's formats."""
    if not logprobs:
        return
    for one in logprobs.get("content") or ():
        top = tuple(Alternative(UNKNOWN_TOKEN, other["token"], other["logprob"]) for other in one["top_logprobs"])
        yield Token(UNKNOWN_TOKEN, one["token"], one["logprob"], top)
    for place, text in enumerate(logprobs.get("tokens") or ()):
        listed = (logprobs.get("top_logprobs") or [None] * (place + 1))[place] or {}
        top = tuple(Alternative(UNKNOWN_TOKEN, other, value) for other, value in listed.items())
        yield Token(UNKNOWN_TOKEN, text, logprobs["token_logprobs"][place], top)


def reply_chunks(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """JSON objects of the server-sent events in a response of status 200.

    Raises:
        ValueError: one is not a JSON object, or the last one is missing.
    """
    for line in response:
        name, _, data = line.partition(b":")
        if name != b"data":
            continue
        if data.strip() == b"[DONE]":
            return
        chunk = _object(data)
        if chunk is None:
            raise ValueError(f"It sent {brief(data.decode('utf-8', 'replace').strip())}")
        yield chunk
    raise ValueError("Its stream ended early")


def _object(text: bytes) -> dict[str, object] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def failure_in_chunk(chunk: dict[str, Any]) -> Failed:
    """The failure in a chunk with the key `error`, whose `code` is a status."""
    code = chunk["error"].get("code") if isinstance(chunk["error"], dict) else None
    return failure_of_status(
        code if isinstance(code, int) else http.HTTPStatus.INTERNAL_SERVER_ERROR, json.dumps(chunk)
    )


def failure_of_status(status: int, text: str) -> Failed:
    """The failure of a response with an error status."""
    message = error_message(text)
    if "context length" in message or "maximum context" in message:
        return Failed("too_long", message)
    kinds = {400: "invalid", 404: "model_gone", 422: "invalid", 429: "busy"}
    return Failed(kinds.get(status, "engine"), message)  # type: ignore[arg-type]  # one of the kinds


def error_message(text: str) -> str:
    """The message of an error in any of the formats of servers, JSON or not."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return brief(text)
    error = content.get("error", content) if isinstance(content, dict) else content
    named = error.get("message") or error.get("detail") if isinstance(error, dict) else error
    return brief(str(named or text))
