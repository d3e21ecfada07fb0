"""Reads a request to `/v1/chat/completions`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llf_core.chat.request import MAX_TOP_LOGPROBS, ChatRequest, RequestError
from llf_core.chat.server.api_error import ApiError, invalid
from llf_core.chat.server.fields import Fields
from llf_core.chat.server.messages import has_pictures, messages_of, tools_of
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
from llf_core.chat.server.tool_choice import ToolChoice, tool_choice_of

if TYPE_CHECKING:
    from collections.abc import Mapping

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
