"""Body of a request: JSON of a limited size that is read within a limited time, and its fields, taken one by one."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.requests import ClientDisconnect

from llf_core.chat.server.api_error import ApiError, invalid, shown
from llf_core.untrusted.plain_json import NotPlainError, json_value

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from starlette.requests import Request

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
