"""Requests to `/v1/chat/completions`, and their answers: a stream of chunks, or one answer."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from llf_core.chat.events import Failed, Finished, Piece, ToolCallPiece
from llf_core.chat.request import MAX_TOP_LOGPROBS, ChatRequest, RequestError
from llf_core.chat.server.api_error import ApiError, invalid
from llf_core.chat.server.messages import has_pictures, messages_of, tools_of
from llf_core.chat.server.replies import CANCELLED
from llf_core.chat.server.reply_fields import chat_logprobs, usage_of
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
from llf_core.chat.server.tool_choice import ForcedCall, ToolChoice, tool_choice_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.chat.events import Event, Token

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
