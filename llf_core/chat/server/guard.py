"""Access checks before every route: host names, origins and API keys, which are in no argument or file."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import re
import secrets
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response

from llf_core.chat.server.request_body import ApiError, shown
from llf_core.user_error import BAD_CONFIG, UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN_ROUTES = frozenset({"/health"})
"""Routes without a key, which reveal nothing of models or requests."""
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
ANY_ORIGIN = "*"
_ALLOWED_HEADERS = "authorization, content-type"
_ALLOWED_METHODS = "GET, POST"
_PREFLIGHT_SECONDS = "600"
_HOST = re.compile(r"(?:\[(?P<address>[^]]*)\]|(?P<name>[^][:]*))(?::\d*)?", re.ASCII)
"""A host and its port (RFC 9110, section 7.2); an IPv6 address stands in brackets."""
MIN_CHARACTERS = 16
"""Minimum length of a key if other machines reach the server."""


@dataclass(frozen=True)
class Access:
    """Who may use the server.

    Attributes:
        hosts: further names in the header `Host`; a port after a name is left out.
        keys: API keys; empty if none is needed.
        origins: origins whose pages may use it; `*` for all.
    """

    host: str
    hosts: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address. Of names only `localhost` counts."""
    if host in LOOPBACK_NAMES:
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)  # ::ffff:127.0.0.1, of which Python knows it since 3.13
    return (address if mapped is None else mapped).is_loopback


class Guard:
    """Checks `Host`, `Origin` and the API key of each request, in this order."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._origins = frozenset(origin.rstrip("/").lower() for origin in access.origins)
        self._keys = [_digest(key) for key in access.keys]
        self._hosts = _host_names(access)
        self._any_address = _is_unspecified(access.host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that is refused, or pass it on."""
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        try:
            self._check_host(headers.getlist("host"))
            if origin is not None:
                self._check_origin(origin, headers["host"])
                if scope["method"] == "OPTIONS":
                    await self._preflight(origin)(scope, receive, send)
                    return
            if scope["path"] not in OPEN_ROUTES:
                self._check_key(headers.getlist("authorization"))
        except ApiError as error:
            await error.response()(scope, receive, self._with_origin(send, origin))
            return
        await self._app(scope, receive, self._with_origin(send, origin))

    def _check_host(self, given: Sequence[str]) -> None:
        """Refuse other names: a page whose own name resolves to this server could read everything (DNS rebinding)."""
        name = _name_of(given[0]) if len(given) == 1 else ""
        if name in self._hosts or (self._any_address and _is_address(name)):
            return
        raise ApiError(
            403,
            f"The header Host is {shown(given[0] if given else 'missing')}. Expected {', '.join(sorted(self._hosts))}. "
            "Start the server with --allow-host to allow another name.",
            code="host_not_allowed",
        )

    def _check_origin(self, origin: str, host: str) -> None:
        if self._is_allowed(origin) or origin.lower() in {f"http://{host}".lower(), f"https://{host}".lower()}:
            return
        raise ApiError(
            403,
            f"The page is of the origin {shown(origin)}. Pages may not use this server. Start it with --allow-origin "
            "to allow an origin.",
            code="origin_not_allowed",
        )

    def _is_allowed(self, origin: str) -> bool:
        return ANY_ORIGIN in self._origins or origin.lower() in self._origins

    def _check_key(self, given: Sequence[str]) -> None:
        """Compare a digest with those of all keys, in constant time."""
        if not self._keys:
            return
        kind, _, key = (given[0] if len(given) == 1 else "").partition(" ")
        digest = _digest(key.strip())
        found = [hmac.compare_digest(digest, one) for one in self._keys]
        if kind.lower() == "bearer" and any(found):
            return
        what = "is wrong" if given else "is missing"
        raise ApiError(
            401,
            f"The API key {what}. Expected the header Authorization: Bearer KEY.",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )

    def _preflight(self, origin: str) -> Response:
        headers = {
            "Access-Control-Allow-Methods": _ALLOWED_METHODS,
            "Access-Control-Allow-Headers": _ALLOWED_HEADERS,
            "Access-Control-Max-Age": _PREFLIGHT_SECONDS,
        }
        return Response(None, 204, headers | self._origin_headers(origin))

    def _origin_headers(self, origin: str) -> dict[str, str]:
        return {"Access-Control-Allow-Origin": origin, "Vary": "Origin"} if self._is_allowed(origin) else {}

    def _with_origin(self, send: Send, origin: str | None) -> Send:
        """Add the headers that let an allowed page read the answer."""
        added = self._origin_headers(origin) if origin is not None else {}
        if not added:
            return send

        async def wrapped(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(added)
            await send(message)

        return wrapped


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()


def _host_names(access: Access) -> frozenset[str]:
    names = {*LOOPBACK_NAMES, access.host.lower(), *filter(None, map(_name_of, access.hosts))}
    if _is_unspecified(access.host):
        names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
    return frozenset(names)


def _name_of(host: str) -> str:
    """The name in a header `Host`, without a port; empty if it is neither a name nor an address."""
    if _is_address(host):
        return host.lower()
    found = _HOST.fullmatch(host)
    if found is None or (found["address"] and not _is_address(found["address"])):
        return ""
    return (found["address"] or (found["name"] or "").rstrip(".")).lower()


def _is_unspecified(host: str) -> bool:
    """Whether the server listens on all addresses."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class KeyRefusedError(UserError):
    """An API key is missing or cannot be used."""

    exit_code = BAD_CONFIG


def keys_of(variables: Sequence[str], *, exposed: bool) -> list[str]:
    """Read API keys from environment variables, and remove these, so that no child process inherits them.

    Args:
        exposed: whether other machines reach the server, so that keys need `MIN_CHARACTERS`.

    Raises:
        KeyRefusedError: a variable is missing, or its key is too short or not printable ASCII without blanks.
    """
    keys = []
    for variable in variables:
        key = os.environ.get(variable, "")
        if not key:
            raise KeyRefusedError(f"The environment variable {variable[:80]!r} is not set.", "Set it to the API key.")
        if not key.isascii() or not key.isprintable() or " " in key:
            raise KeyRefusedError(
                f"The API key in {variable} has a blank or a character that no header can hold.",
                "Expected ASCII letters, digits and signs.",
            )
        if exposed and len(key) < MIN_CHARACTERS:
            raise KeyRefusedError(
                f"The API key in {variable} has {len(key)} characters. Expected at least {MIN_CHARACTERS} where other "
                "machines reach the server."
            )
        keys.append(key)
    for variable in variables:
        os.environ.pop(variable, None)
    return keys


def new_key() -> str:
    """A new API key with 256 random bits."""
    return f"llf-{secrets.token_urlsafe(32)}"
