"""A request for a reply, as views, the server and commands send it to an engine, and the events that answer it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from llf_core.config.sections import LEAST_DIVISOR
from llf_core.generation.replies.reply_parser import Alternative, Piece, Token, ToolCallPiece, text_with_calls

if TYPE_CHECKING:
    from collections.abc import Mapping


MAX_TOP_LOGPROBS = 20
"""Maximum number of alternatives of a token, as in OpenAI's API."""
MAX_STOPS = 16

MAX_SCHEMA_BYTES, MAX_PATTERNS = 65_536, 64
"""Maximum size of a JSON schema, and maximum number of regular expressions in it."""


class RequestError(ValueError):
    """A request is invalid. The message names the field, its value and what was expected."""


@dataclass(frozen=True)
class ChatSampling:
    """Sampling parameters of a reply.

    Attributes:
        temperature: temperature of sampling, in [0, 100]; 0 decodes greedily.
        top_p: nucleus sampling: cumulative probability of the tokens to sample from, in (0, 1].
        top_k: number of most likely tokens to sample from; 0 for all.
        min_p: minimum probability of a token relative to the most likely one, in [0, 1]; 0 for no minimum.
        repetition_penalty: divides the positive scores of tokens that have already occurred and multiplies the negative
            ones, in [0.001, 100]; None for the model's own.
        presence_penalty: subtracted once from the score of each token that is in the reply, in [-2, 2].
        frequency_penalty: subtracted from the score of a token for each time it is in the reply, in [-2, 2].
        logit_bias: added to the scores of tokens, by token id.
        seed: random seed; None for another one with each request.

    Raises:
        RequestError: a parameter is out of range.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = field(default_factory=dict)
    seed: int | None = None

    def __post_init__(self) -> None:
        ranges: dict[str, tuple[float, float, bool, str]] = {
            "temperature": (0, 100, True, "a number from 0 to 100"),
            "top_p": (0, 1, False, "a number above 0 and at most 1"),
            "min_p": (0, 1, True, "a number from 0 to 1"),
            "presence_penalty": (-2, 2, True, "a number from -2 to 2"),
            "frequency_penalty": (-2, 2, True, "a number from -2 to 2"),
        }
        for name, (low, high, closed, expected) in ranges.items():
            value = getattr(self, name)
            if not (low <= value if closed else low < value) or not value <= high:
                raise RequestError(f"{name} is {value}. Expected {expected}.")
        if self.top_k < 0:
            raise RequestError(f"top_k is {self.top_k}. Expected an integer of at least 0.")
        if self.repetition_penalty is not None and not LEAST_DIVISOR <= self.repetition_penalty <= 100:  # noqa: PLR2004 - as `ranges`
            raise RequestError(
                f"repetition_penalty is {self.repetition_penalty}. Expected a number from {LEAST_DIVISOR} to 100."
            )


@dataclass(frozen=True)
class ChatRequest:
    """A request for one reply. Its values are JSON, since an engine gets them through a pipe or by HTTP.

    Attributes:
        messages: the conversation in OpenAI's format: `role` (system, user, assistant, tool), `content` (text, or parts
            with `type`), and optionally `tool_calls`, `tool_call_id`, `reasoning_content`. Empty if `prompt` is given.
        prompt: text to continue without a chat template; None if `messages` are given.
        token_ids: the tokenized prompt, in place of `messages` and `prompt`, see `llf_core.chat.prompt`.
        rendered: end of the text that the chat template made of the messages; None for plain text.
        adapter: name of a loaded adapter; None for the base model.
        tools: functions that the model may call, in OpenAI's format.
        max_tokens: maximum number of tokens of the reply; None for the rest of the context.
        stop: stop strings; the reply ends before them.
        logprobs: whether each token comes with its log-probability.
        top_logprobs: number of alternatives of each token, up to `MAX_TOP_LOGPROBS`.
        json_schema: JSON schema that the reply follows; `{}` for any JSON object, None for free text.
        template_options: further variables of the chat template, such as `enable_thinking`.
        media_limits: attributes of `llf_core.data.media_files.MediaLimits` that differ from its defaults.
        embed: whether the prompt is answered with its embedding (`Embedded`) instead of a reply.
        continue_last: whether the reply continues the last message, which is the assistant's, instead of answering it.

    Raises:
        RequestError: a field is invalid.
    """

    messages: tuple[dict[str, Any], ...] = ()
    prompt: str | None = None
    adapter: str | None = None
    tools: tuple[dict[str, Any], ...] = ()
    sampling: ChatSampling = field(default_factory=ChatSampling)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: bool = False
    top_logprobs: int = 0
    json_schema: dict[str, Any] | None = None
    template_options: dict[str, Any] = field(default_factory=dict)
    media_limits: dict[str, Any] = field(default_factory=dict)
    continue_last: bool = False
    embed: bool = False
    token_ids: tuple[int, ...] = ()
    rendered: str | None = None

    def __post_init__(self) -> None:
        if bool(self.messages) + (self.prompt is not None) + bool(self.token_ids) != 1:
            raise RequestError("Expected either messages or a prompt.")
        if self.embed and not self.prompt and not self.token_ids:
            raise RequestError("An embedding needs a prompt that is not empty.")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise RequestError(f"max_tokens is {self.max_tokens}. Expected an integer of at least 1.")
        if len(self.stop) > MAX_STOPS:
            raise RequestError(f"stop has {len(self.stop)} strings. Expected at most {MAX_STOPS}.")
        if not 0 <= self.top_logprobs <= MAX_TOP_LOGPROBS:
            raise RequestError(
                f"top_logprobs is {self.top_logprobs}. Expected an integer from 0 to {MAX_TOP_LOGPROBS}."
            )
        if self.json_schema is not None:
            _check_schema(self.json_schema)

    def json(self) -> dict[str, Any]:
        """The request as JSON, for the pipe to an engine process."""
        return {one.name: getattr(self, one.name) for one in fields(self)} | {"sampling": asdict(self.sampling)}

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> ChatRequest:
        """The request that `json` wrote; keys of `logit_bias` may be text."""
        values = dict(given)
        sampling = dict(values.pop("sampling", {}))
        sampling["logit_bias"] = {int(token): bias for token, bias in sampling.get("logit_bias", {}).items()}
        listed = {one.name for one in fields(cls) if one.name in {"messages", "tools", "stop", "token_ids"}}
        values = {name: tuple(value) if name in listed else value for name, value in values.items()}
        return cls(sampling=ChatSampling(**sampling), **values)


def _check_schema(schema: dict[str, Any]) -> None:
    size = len(json.dumps(schema))
    if size > MAX_SCHEMA_BYTES:
        raise RequestError(f"json_schema has {size:,} bytes. Expected at most {MAX_SCHEMA_BYTES:,}.")
    patterns, left = 0, [schema]
    while left:
        part: Any = left.pop()
        if isinstance(part, dict):
            patterns += isinstance(part.get("pattern"), str)
            patterns += len(part["patternProperties"]) if isinstance(part.get("patternProperties"), dict) else 0
        left += part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    if patterns > MAX_PATTERNS:
        raise RequestError(f"json_schema has {patterns:,} regular expressions. Expected at most {MAX_PATTERNS}.")


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
