"""Reads the body of a request: JSON of a limited size, within a limited time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect

from llf_core.chat.server.api_error import ApiError, shown
from llf_core.untrusted.plain_json import NotPlainError, json_value

if TYPE_CHECKING:
    from starlette.requests import Request

MAX_BODY = 8 * 2**20
"""Maximum size of a body in bytes."""
BODY_SECONDS = 60.0
"""Time in which a client must have sent a body."""
DISCARDED_SECONDS = 5.0
"""Time in which the rest of a body that is too large is read and dropped, so that the client reads the answer."""


async def read_json(request: Request, seconds: float = BODY_SECONDS) -> dict[str, Any]:
    """Read the body as a JSON object, within bounds of size and time, so that no client can occupy the server.

    The rest of a body that is too large is read and dropped for up to `DISCARDED_SECONDS`.

    Args:
        request: the request.
        seconds: seconds in which the client must have sent it.

    Raises:
        ApiError: the body is too large, too slow, compressed, no JSON object, or of another content type.
        ClientDisconnect: the client has gone.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # a page of another origin cannot send this type without asking first
        raise ApiError(415, f"The content type is {shown(kind or 'missing')}. Expected application/json.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise ApiError(415, "The body is compressed. Expected no Content-Encoding.")
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or int(declared) > MAX_BODY:
        await _discard(request)
        raise _too_large()
    try:
        async with asyncio.timeout(seconds):
            data = await _read(request)
    except TimeoutError:
        raise ApiError(
            408, f"The body did not come within {seconds:g} seconds.", headers={"Connection": "close"}
        ) from None
    try:
        value = json_value(data)
    except NotPlainError as error:
        raise ApiError(400, f"The body is not valid JSON: {error}. Expected a JSON object.") from None
    if not isinstance(value, dict):
        raise ApiError(400, f"The body is {shown(value)}. Expected a JSON object.")
    return value


async def _read(request: Request) -> bytes:
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BODY:
            data.clear()
            await _discard(request)
            raise _too_large()
    return bytes(data)


async def _discard(request: Request) -> None:
    """Drop the rest of a body for a while: many clients read no answer before they have sent all."""
    try:
        async with asyncio.timeout(DISCARDED_SECONDS):
            more = True
            while more:
                message = await request.receive()
                more = message["type"] == "http.request" and message.get("more_body", False)
    except (TimeoutError, ClientDisconnect):
        return


def _too_large() -> ApiError:
    return ApiError(
        413,
        f"The body is too large. Expected at most {MAX_BODY // 2**20} MB.",
        code="body_too_large",
        headers={"Connection": "close"},
    )
