"""Requests to HTTP endpoints of others: bounded answers, a time limit, and no redirects."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Status codes of a server that may respond later."""
LARGEST = 16 * 2**20


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: it would send the credentials to another host, and turn a POST into a GET."""

    def redirect_request(self, *_: object) -> None:
        """Return None, which raises the redirect as an HTTPError."""


def ask(url: str, body: bytes | None, headers: Mapping[str, str], *, timeout: float, largest: int = LARGEST) -> bytes:
    """Send a request and read the whole answer, with limits on time and size.

    Args:
        url: `http` or `https`; the caller has checked it.
        body: sent by POST; None for a GET.
        timeout: seconds for the connection, for each read from it, and for the whole body.
        largest: maximum number of bytes of the answer.
    """
    until = time.monotonic() + timeout
    method = "GET" if body is None else "POST"
    request = urllib.request.Request(url, body, dict(headers), method=method)  # noqa: S310 - http(s) alone
    with urllib.request.build_opener(_NoRedirect).open(request, timeout=timeout) as answer:
        return read_answer(answer, until, largest)


def read_answer(answer: http.client.HTTPResponse | urllib.error.HTTPError, until: float, largest: int) -> bytes:
    """Read the body of an answer, also that of an error, until a time of `time.monotonic`."""
    parts, size = [], 0
    while part := answer.read1(65536):
        parts.append(part)
        size += len(part)
        if size > largest:
            raise OSError(f"more than {largest:,} bytes")
        if time.monotonic() > until:
            raise TimeoutError("timed out")
    if missing := getattr(answer, "length", None):  # `read1` tells the end of the body from that of the connection
        raise http.client.IncompleteRead(b"".join(parts), missing)
    return b"".join(parts)
