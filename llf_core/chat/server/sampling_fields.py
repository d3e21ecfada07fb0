"""Sampling parameters and other fields that chat and plain completions share."""

from __future__ import annotations

from dataclasses import replace

from llf_core.chat.request import MAX_STOPS, ChatSampling, RequestError
from llf_core.chat.server.api_error import ApiError, invalid
from llf_core.chat.server.request_body import MAX_INTEGER, Fields

MAX_CHOICES = 16
"""Maximum number of replies to one request (`n`)."""
MAX_STOP_CHARACTERS = 1000
MAX_BIASES = 4096
"""Maximum number of tokens in `logit_bias`."""
MAX_BIAS = 100.0
MAX_ID_DIGITS = 9
IGNORED = ("user", "metadata", "store", "safety_identifier", "prompt_cache_key", "prompt_cache_retention")
"""Fields that name users or files of OpenAI's service and change no reply."""
UNSUPPORTED = {
    "best_of": "Send n instead, and choose one of the replies.",
    "functions": "Send tools instead.",
    "function_call": "Send tool_choice instead.",
    "audio": "The server replies with text.",
    "prediction": "Remove it.",
    "web_search_options": "Remove it.",
    "verbosity": "Ask for a short or a long reply in the system message.",
    "moderation": "Remove it.",
    "suffix": "Remove it: the models continue a prompt and do not fill in.",
}


def sampling_of(fields: Fields) -> ChatSampling:
    """Take the sampling parameters, or raise `ApiError`. As in OpenAI's API, the default temperature is 1."""
    temperature = fields.number("temperature")
    top_p = fields.number("top_p")
    penalty = fields.number("repetition_penalty")
    try:
        return ChatSampling(
            temperature=1.0 if temperature is None else temperature,
            top_p=1.0 if top_p is None else top_p,
            top_k=max(0, fields.integer("top_k", -1) or 0),  # of other servers, -1 is all tokens
            min_p=fields.number("min_p") or 0.0,
            repetition_penalty=penalty,
            presence_penalty=fields.number("presence_penalty") or 0.0,
            frequency_penalty=fields.number("frequency_penalty") or 0.0,
            logit_bias=_biases(fields),
            seed=fields.integer("seed"),
        )
    except RequestError as error:
        raise of_request(error) from None


def of_request(error: RequestError) -> ApiError:
    """The error of a request; its `param` is the field that the message names first."""
    return ApiError(400, str(error), param=str(error).partition(" ")[0], code="invalid_value")


def stops_of(fields: Fields) -> tuple[str, ...]:
    """Take the stop strings, one or several as in OpenAI's API, or raise `ApiError`."""
    value = fields.raw("stop")
    if value is None:
        return ()
    stops = [value] if isinstance(value, str) else value
    expected = f"a text or a list of at most {MAX_STOPS} texts"
    if not isinstance(stops, list) or len(stops) > MAX_STOPS:
        raise invalid("stop", value, expected)
    for stop in stops:
        if not isinstance(stop, str) or not 0 < len(stop) <= MAX_STOP_CHARACTERS:
            raise invalid("stop", stop, f"{expected}, each of 1 to {MAX_STOP_CHARACTERS} characters")
    return tuple(stops)


def choices_of(fields: Fields) -> int:
    """Take the number of replies, `n`, from 1 (default) to `MAX_CHOICES`."""
    return fields.integer("n", 1, MAX_CHOICES) or 1


def stream_of(fields: Fields) -> tuple[bool, bool]:
    """Take `stream` and `stream_options`: whether the reply is streamed, and whether with the numbers of tokens."""
    stream = fields.flag("stream")
    options = fields.object("stream_options")
    if options is None:
        return stream, False
    if not stream:
        raise invalid("stream_options", options, "stream: true beside it")
    inner = Fields(options, "stream_options")
    include_usage = inner.flag("include_usage")
    inner.flag("include_obfuscation")  # the size of chunks hides nothing on one's own machine
    inner.finish()
    return stream, include_usage


def ignore(fields: Fields) -> None:
    """Take the fields that change no reply; `ApiError` if `service_tier` or `modalities` is not supported."""
    for name in IGNORED:
        fields.raw(name)
    fields.choice("service_tier", ("auto", "default"))
    modalities = fields.raw("modalities")
    if modalities not in (None, ["text"]):
        raise invalid("modalities", modalities, '["text"]')


def with_seed(sampling: ChatSampling, choice: int) -> ChatSampling:
    """Sampling parameters of a choice: its number is added to the seed, if there is one, modulo 2**63 - 1."""
    if sampling.seed is None or not choice:
        return sampling
    return replace(sampling, seed=(sampling.seed + choice) % MAX_INTEGER)


def _biases(fields: Fields) -> dict[int, float]:
    given = fields.object("logit_bias") or {}
    expected = f"a number from -{MAX_BIAS:g} to {MAX_BIAS:g} for each token id"
    if len(given) > MAX_BIASES:
        raise ApiError(
            400, f"logit_bias has {len(given):,} tokens. Expected at most {MAX_BIASES:,}.", param="logit_bias"
        )
    biases = {}
    for token, bias in given.items():
        number = isinstance(bias, int | float) and not isinstance(bias, bool)
        if (  # `01` would be the id of `1`
            not (token.isascii() and token.isdigit() and len(token) <= MAX_ID_DIGITS and str(int(token)) == token)
            or not number
            or not -MAX_BIAS <= bias <= MAX_BIAS
        ):
            raise invalid("logit_bias", {token: bias}, expected)
        biases[int(token)] = float(bias)
    return biases
