"""Reads a request to `/v1/completions`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llf_core.chat.request import MAX_TOP_LOGPROBS, ChatRequest, RequestError
from llf_core.chat.server.api_error import ApiError, invalid
from llf_core.chat.server.fields import Fields
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
