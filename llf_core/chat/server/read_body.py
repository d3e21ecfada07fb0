"""Reads the body of a request: JSON of a limited size, within a limited time."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.requests import ClientDisconnect

from llf_core.chat.server.api_error import ApiError, shown
from llf_core.untrusted.plain_json import NotPlainError, json_value

if TYPE_CHECKING:
    from collections.abc import Callable

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
