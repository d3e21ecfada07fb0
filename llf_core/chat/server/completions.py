"""`/v1/completions` and `/v1/chat/completions`: requests, and their answers as a stream of chunks or as one."""

from __future__ import annotations

import math
import secrets
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from llf_core.chat.request import MAX_TOP_LOGPROBS, ChatRequest, Failed, Finished, Piece, RequestError, ToolCallPiece
from llf_core.chat.server.messages import ForcedCall, ToolChoice, has_pictures, messages_of, tool_choice_of, tools_of
from llf_core.chat.server.replies import CANCELLED
from llf_core.chat.server.request_body import (
    UNSUPPORTED,
    ApiError,
    Fields,
    choices_of,
    ignore,
    invalid,
    of_request,
    sampling_of,
    stops_of,
    stream_of,
    with_seed,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llf_core.chat.request import Alternative, Event, Token


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


RESERVED_OPTIONS = frozenset({
    "messages", "tools", "conversation", "documents", "chat_template", "tokenize", "padding", "truncation",
    "max_length", "return_tensors", "return_dict", "add_generation_prompt", "continue_final_message",
    "return_assistant_tokens_mask", "tokenizer_kwargs", "processor_kwargs", "bos_token", "eos_token",
})  # fmt: skip
"""Arguments of `apply_chat_template` that are not variables of a template."""
REASONING_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")


@dataclass(frozen=True)
class ChatCall:
    """A request to `/v1/chat/completions`.

    Attributes:
        include_usage: whether the stream ends with the numbers of tokens.
        one_call: whether a reply ends after its first tool call.
    """

    model: str
    requests: tuple[ChatRequest, ...]
    stream: bool
    include_usage: bool
    choice: ToolChoice
    one_call: bool
    has_pictures: bool


def read_chat_call(body: Mapping[str, object]) -> ChatCall:
    """Read a request; `ApiError` if a field is invalid, unknown or not supported."""
    fields = Fields(dict(body))
    model = fields.required("model", fields.text("model"), "the name of a model; /v1/models lists them")
    messages = messages_of(fields)
    choice = tool_choice_of(fields, tools_of(fields))
    one_call = not fields.flag("parallel_tool_calls", default=True)
    schema = _response_schema(fields)
    if schema is not None and choice.tools:
        raise ApiError(
            400,
            "response_format and tools are both given. Expected one of them: a reply in JSON cannot call tools. Send "
            "tool_choice: none for the reply in JSON.",
            param="response_format",
            code="invalid_value",
        )
    logprobs = fields.flag("logprobs")
    top_logprobs = fields.integer("top_logprobs", 0, MAX_TOP_LOGPROBS)
    if top_logprobs is not None and not logprobs:
        raise invalid("top_logprobs", top_logprobs, "logprobs: true beside it")
    continue_last = fields.flag("continue_final_message")
    if continue_last and messages[-1]["role"] != "assistant":
        raise invalid("continue_final_message", continue_last, "a last message of the role assistant")
    options = _template_options(fields)
    max_tokens = _max_tokens(fields)
    stops = stops_of(fields)
    sampling, count = sampling_of(fields), choices_of(fields)
    stream, include_usage = stream_of(fields)
    ignore(fields)
    fields.finish(UNSUPPORTED)
    try:
        request = ChatRequest(
            messages=tuple(messages),
            tools=choice.tools,
            sampling=sampling,
            max_tokens=max_tokens,
            stop=stops,
            logprobs=logprobs,
            top_logprobs=top_logprobs or 0,
            json_schema=schema if choice.schema is None else choice.schema,
            template_options=options,
            continue_last=continue_last,
        )
    except RequestError as error:
        raise of_request(error) from None
    requests = tuple(replace(request, sampling=with_seed(sampling, one)) for one in range(count))
    return ChatCall(model, requests, stream, include_usage, choice, one_call, has_pictures(messages))


def _max_tokens(fields: Fields) -> int | None:
    old, new = fields.integer("max_tokens", 1), fields.integer("max_completion_tokens", 1)
    if old is not None and new is not None and old != new:
        raise invalid("max_tokens", old, f"the value of max_completion_tokens, {new}, or none")
    return old if new is None else new


def _template_options(fields: Fields) -> dict[str, object]:
    """Variables of the chat template: `chat_template_kwargs`, and `reasoning_effort` under its name."""
    options = dict(fields.object("chat_template_kwargs") or {})
    for name in options:
        if name in RESERVED_OPTIONS or not name.isidentifier():
            raise invalid(
                "chat_template_kwargs", {name: "…"}, "variables of the chat template, such as enable_thinking"
            )
    effort = fields.choice("reasoning_effort", REASONING_EFFORTS)
    if effort is not None:
        options.setdefault("reasoning_effort", effort)
    return options


def _response_schema(fields: Fields) -> dict[str, object] | None:
    """JSON schema of the reply; None for free text."""
    given = fields.object("response_format")
    if given is None:
        return None
    outer = Fields(given, "response_format")
    kinds = ("text", "json_object", "json_schema")
    kind = outer.required("type", outer.choice("type", kinds), "text, json_object or json_schema")
    schema: dict[str, object] | None = None
    if kind == "json_object":
        schema = {}
    elif kind == "json_schema":
        inner = Fields(
            outer.required("json_schema", outer.object("json_schema"), "an object with schema"),
            "response_format.json_schema",
        )
        inner.text("name")
        inner.text("description")
        inner.flag("strict")  # a reply follows the schema in any case
        schema = inner.object("schema")
        if schema is None:
            inner.required("schema", None, "a JSON schema")
        inner.finish()
    outer.finish()
    return schema


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


LOWEST = -9999.0
"""Replaces minus infinity, which JSON lacks, as in OpenAI's API."""


def chat_logprobs(tokens: Sequence[Token]) -> list[dict[str, Any]]:
    """Tokens as in chat completions: natural logarithms (`LOWEST` if infinite); `bytes` only of whole characters."""
    return [_entry(token) | {"top_logprobs": [_entry(one) for one in token.top]} for token in tokens]


def completion_logprobs(tokens: Sequence[Token], offset: int) -> dict[str, list[Any]]:
    """Tokens as in `/v1/completions`: natural logarithms (`LOWEST` if infinite), and offsets in characters.

    Of alternatives with the same text, `top_logprobs` has the likeliest.
    """
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.text)
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [_finite(token.logprob) for token in tokens],
        "top_logprobs": [{one.text: _finite(one.logprob) for one in reversed(token.top)} for token in tokens],
        "text_offset": offsets,
    }


def _entry(token: Token | Alternative) -> dict[str, object]:
    whole = "\N{REPLACEMENT CHARACTER}" not in token.text  # a part of a character has no text of its own
    return {
        "token": token.text,
        "logprob": _finite(token.logprob),
        "bytes": list(token.text.encode("utf-8", "replace")) if whole else None,
    }


def _finite(logprob: float) -> float:
    return logprob if math.isfinite(logprob) else LOWEST


def usage_of(finished: Mapping[int, Finished], choices: int) -> dict[str, Any]:
    """Numbers of tokens in OpenAI's format. A prompt with several choices counts once, as in OpenAI's API."""
    prompts = [event for number, event in sorted(finished.items()) if number % choices == 0]
    prompt = sum(event.prompt_tokens for event in prompts)
    completion = sum(event.completion_tokens for event in finished.values())
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(event.cached_tokens for event in prompts)},
    }
