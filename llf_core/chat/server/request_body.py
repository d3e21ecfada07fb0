"""Body of a request: JSON of limited size, its fields and sampling parameters, and errors in OpenAI's format."""

from __future__ import annotations

import asyncio
import json
import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

from llf_core.chat.request import MAX_STOPS, ChatSampling, RequestError
from llf_core.untrusted import brief
from llf_core.untrusted.plain_json import NotPlainError, json_value

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from starlette.requests import Request

    from llf_core.chat.request import Failed


MAX_BODY = 8 * 2**20
"""Maximum size of a body in bytes."""

MAX_VALUES = 200_000
"""Maximum number of values in a body: a message has up to seven."""

BODY_SECONDS = 60.0
"""Time in which a client must have sent a body."""

DISCARDED_SECONDS = 5.0
"""Time in which the rest of a body that is too large is read and dropped, so that the client reads the answer."""

SMALL_BYTES, SMALL_VALUES = 2**16, 2_000
"""A body within both is read at once, in about a millisecond."""

BYTES_PER_SECOND = 64 * 2**20
"""Rate at which large bodies are received, all together."""

MAX_LATE = 0.05
"""Seconds by which a wait may be too long, and the next ones shorter for it."""

REST = 4
"""Seconds without large bodies for each second in which one was parsed."""
CallT = TypeVar("CallT")


class Bodies:
    """Reads the bodies of a server, each within some seconds. Large ones take turns, so that no other request waits."""

    def __init__(self, seconds: float = BODY_SECONDS) -> None:
        self._seconds = seconds
        self._turn = asyncio.Lock()
        self._next = 0.0

    async def read(self, request: Request, read_call: Callable[[dict[str, Any]], CallT]) -> CallT:
        """Read the call in a body.

        Raises:
            ApiError: the body is too large, too slow, compressed, or not JSON.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":  # a page of another origin cannot send this type without asking first
            raise ApiError(415, f"The content type is {shown(kind or 'missing')}. Expected application/json.")
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise ApiError(415, "The body is compressed. Expected no Content-Encoding.")
        declared = request.headers.get("content-length", "0")
        if not declared.isdecimal() or int(declared) > MAX_BODY:
            await self._discard(request)
            raise _too_large()
        try:
            async with asyncio.timeout(self._seconds) as limit:
                data = await self._receive(request, limit)
        except TimeoutError:
            raise ApiError(
                408, f"The body did not come within {self._seconds:g} seconds.", headers={"Connection": "close"}
            ) from None
        if len(data) <= SMALL_BYTES and _signs(data) <= SMALL_VALUES:
            return _read(data, read_call)
        async with self._turn:
            await self._wait(0)
            begun = time.monotonic()
            try:
                return await asyncio.to_thread(_read, data, read_call)
            finally:
                now = time.monotonic()
                self._next = max(self._next, now) + REST * (now - begun)

    async def _receive(self, request: Request, limit: asyncio.Timeout) -> bytes:
        data = bytearray()
        async for chunk in request.stream():
            data += chunk
            if len(data) > MAX_BODY:
                data.clear()
                await self._discard(request)
                raise _too_large()
            if len(data) > SMALL_BYTES:
                begun = time.monotonic()
                await self._wait(len(chunk))
                limit.reschedule((limit.when() or 0) + time.monotonic() - begun)
        return bytes(data)

    async def _discard(self, request: Request) -> None:
        """Drop the rest of a body for a while: many clients read no answer before they have sent all."""
        try:
            async with asyncio.timeout(DISCARDED_SECONDS):
                more = True
                while more:
                    message = await request.receive()
                    more = message["type"] == "http.request" and message.get("more_body", False)
                    await self._wait(len(message.get("body", b"")))
        except (TimeoutError, ClientDisconnect):
            return

    async def _wait(self, received: int) -> None:
        """Wait until the server has time for some bytes of large bodies; until then the client cannot send more."""
        now = time.monotonic()
        self._next = max(self._next, now - MAX_LATE) + received / BYTES_PER_SECOND
        if self._next > now:
            await asyncio.sleep(self._next - now)


def _read(data: bytes, read_call: Callable[[dict[str, Any]], CallT]) -> CallT:
    if b"\0" in data:
        raise ApiError(400, "The body is not valid JSON: it is not text in UTF-8. Expected a JSON object.")
    if _signs(data) > MAX_VALUES and _signs_outside_texts(data) > MAX_VALUES:
        raise ApiError(400, f"The body has too many values. Expected at most {MAX_VALUES:,}.")
    try:
        value = json_value(data)
    except NotPlainError as error:
        raise ApiError(400, f"The body is not valid JSON: {error}. Expected a JSON object.") from None
    if not isinstance(value, dict):
        raise ApiError(400, f"The body is {shown(value)}. Expected a JSON object.")
    return read_call(value)


def _signs(data: bytes) -> int:
    """Number of characters that begin or separate JSON values; those inside strings count too."""
    return data.count(b",") + data.count(b"[") + data.count(b"{")


def _signs_outside_texts(data: bytes) -> int:
    data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    if (quotes := data.count(b'"')) > 4 * MAX_VALUES:  # a key and a text for each value
        return quotes
    return sum(map(_signs, data.split(b'"')[::2]))


def _too_large() -> ApiError:
    return ApiError(
        413,
        f"The body is too large. Expected at most {MAX_BODY // 2**20} MB.",
        code="body_too_large",
        headers={"Connection": "close"},
    )


MAX_INTEGER = 2**63 - 1
_BELOW, _ABOVE = -MAX_INTEGER - 1, MAX_INTEGER


class Fields:
    """Fields of a JSON object, taken one by one; None if missing or null. Invalid values raise `ApiError`.

    Args:
        where: path of the object in the body, such as `messages[0]`; empty for the body.
    """

    def __init__(self, given: object, where: str = "") -> None:
        if not isinstance(given, dict):
            raise invalid(where or "The body", given, "a JSON object")
        self._given: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        self._where = where

    def path(self, name: str) -> str:
        """Path of a field in the body, for errors."""
        return f"{self._where}.{name}" if self._where else name

    def raw(self, name: str) -> Any:
        """Take a value unchecked."""
        return self._given.pop(name, None)

    def text(self, name: str, expected: str = "text") -> str | None:
        """Take a text."""
        value = self.raw(name)
        if value is not None and not isinstance(value, str):
            raise invalid(self.path(name), value, expected)
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """Take true or false."""
        value = self.raw(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise invalid(self.path(name), value, "true or false")
        return value

    def number(self, name: str, low: float = -math.inf, high: float = math.inf) -> float | None:
        """Take a finite number (JSON as Python reads it also has NaN)."""
        value = self.raw(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise invalid(self.path(name), value, _range("a number", low, high))
        if not abs(value) < 1e300:  # noqa: PLR2004 - no NaN, no infinity, and no integer that is too large for a float
            raise invalid(self.path(name), value, _range("a finite number", low, high))
        return float(value)

    def integer(self, name: str, low: int = _BELOW, high: int = _ABOVE) -> int | None:
        """Take an integer, by default of 64 bits."""
        value = self.raw(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise invalid(self.path(name), value, _range("an integer", low, high))
        return value

    def choice(self, name: str, options: Collection[str], default: str | None = None) -> str | None:
        """Take one of several texts."""
        value = self.raw(name)
        if value is None:
            return default
        if not isinstance(value, str) or value not in options:
            raise invalid(self.path(name), value, one_of(options))
        return value

    def object(self, name: str) -> dict[str, Any] | None:
        """Take an object, whose fields another `Fields` reads."""
        value = self.raw(name)
        if value is not None and not isinstance(value, dict):
            raise invalid(self.path(name), value, "a JSON object")
        return value

    def list(self, name: str, most: int, expected: str = "a list") -> list[Any] | None:
        """Take a list of limited length."""
        value = self.raw(name)
        if value is None:
            return None
        if not isinstance(value, list):
            raise invalid(self.path(name), value, expected)
        if len(value) > most:
            raise ApiError(
                400,
                f"{self.path(name)} has {len(value):,} items. Expected at most {most:,}.",
                param=self.path(name),
                code="invalid_value",
            )
        return value

    def required(self, name: str, value: Any, expected: str) -> Any:
        """Return a field's value; raise `ApiError` if it is missing, empty, 0 or false."""
        if value is None:
            path = self.path(name)
            raise ApiError(400, f"{path} is missing. Expected {expected}.", param=path, code="missing_value")
        if not value:
            raise invalid(self.path(name), value, expected)
        return value

    def finish(self, known: Mapping[str, str] | None = None) -> None:
        """Refuse fields that were not taken; `known` has unsupported ones with a sentence on what to do."""
        for name in self._given:
            path = self.path(name)
            advice = (known or {}).get(name)
            if advice is not None:
                raise ApiError(400, f"{path} is not supported. {advice}", param=path, code="unsupported_parameter")
            raise ApiError(
                400,
                f"The field {shown(path)} is unknown. Remove it; docs/serve.md lists the fields.",
                param=path,
                code="unknown_parameter",
            )


def one_of(options: Collection[str]) -> str:
    """Options as the end of a sentence: `a, b or c`."""
    *rest, last = options or [""]
    return f"{', '.join(rest)} or {last}" if rest else last


def _range(what: str, low: float, high: float) -> str:
    bounded = low not in {-math.inf, _BELOW}, high not in {math.inf, _ABOVE}
    if bounded == (True, True):
        return f"{what} from {low} to {high}"
    if bounded == (True, False):
        return f"{what} of at least {low}"
    return f"{what} of at most {high}" if bounded[1] else what


RETRY_SECONDS = 5
"""Seconds after which a client may retry when the server is busy or an engine has ended."""
_MAX_QUOTED = 200


class ApiError(Exception):
    """A request that cannot be answered; `param` is the wrong field, `code` a short name of the error for programs."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = dict(headers or {})
        if status in {429, 503}:
            self.headers.setdefault("Retry-After", str(RETRY_SECONDS))

    def body(self) -> dict[str, Any]:
        """The error in OpenAI's format, for an answer or an event of a stream."""
        kind = "rate_limit_error" if self.status == 429 else "invalid_request_error"  # noqa: PLR2004 - HTTP's codes
        if self.status >= 500:  # noqa: PLR2004 - HTTP's codes
            kind = "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The answer with this error."""
        return JSONResponse(self.body(), self.status, self.headers)


def invalid(param: str, value: object, expected: str) -> ApiError:
    """The error of a field such as `messages[0].role`; `expected` ends the sentence "Expected …"."""
    return ApiError(400, f"{param} is {shown(value)}. Expected {expected}.", param=param, code="invalid_value")


def shown(value: object) -> str:
    """A value of a request for a message: as JSON, shortened, without control characters."""
    if isinstance(value, str | list | dict) and len(value) > _MAX_QUOTED:
        value = value[:_MAX_QUOTED] + "…" if isinstance(value, str) else f"{type(value).__name__} of {len(value)}"
    return brief(json.dumps(value, ensure_ascii=False))


_OF_FAILURE = {
    "invalid": (400, "invalid_value"),
    "too_long": (400, "context_length_exceeded"),
    "busy": (429, "queue_full"),
    "model_gone": (410, "model_gone"),
    "out_of_memory": (503, "out_of_memory"),
    "untrusted": (403, "code_not_allowed"),
    "engine": (503, "engine_failed"),
}
"""HTTP status and code of each kind of failure."""


def of_failure(failure: Failed) -> ApiError:
    """The error of an engine's failure, with its HTTP status."""
    status, code = _OF_FAILURE[failure.kind]
    return ApiError(status, f"{failure.message} {failure.what_to_do}".strip(), code=code)


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
