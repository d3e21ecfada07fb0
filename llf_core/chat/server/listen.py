"""The server's socket, its timeouts and its shutdown."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from llf_core.user_error import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from llf_core.chat.server.app import Server

HEADER_SECONDS = 5.0
"""Time in which a client must have sent the headers of a request, from its first byte or the opening."""
UNREAD_SECONDS = 60.0
"""Time in which a client must have read what was sent; after it the connection is closed."""
KEEP_ALIVE_SECONDS = 75
MAX_HEADER_BYTES = 32 * 1024
MAX_CONNECTIONS = 1024
MAX_SILENT = 128
"""Maximum number of connections of one address that wait for a request; one more closes the oldest."""
MAX_PORT = 65535
LAST_SECONDS = 5
"""Time for the ends of streams after a shutdown has cancelled the replies."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class PortError(UserError):
    """The server cannot listen on an address."""


def open_socket(host: str, port: int) -> socket.socket:
    """Listen on an address (port 0 for any free one), before a model is loaded.

    Raises:
        PortError: the port is taken, not allowed or not from 0 to 65535, or there is no such address.
    """
    if not 0 <= port <= MAX_PORT:  # the system would take it modulo 65536
        raise PortError(f"Port {port} does not exist. Expected one from 0 to {MAX_PORT}.")
    try:
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)  # asyncio sends small parts at once only with the protocol
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(MAX_CONNECTIONS)
        except BaseException:
            listener.close()
            raise
    except (OSError, UnicodeError) as error:
        raise _refused(host, port, error) from None
    return listener


def _refused(host: str, port: int, error: Exception) -> PortError:
    number = getattr(error, "errno", None)
    if number == errno.EADDRINUSE:
        return PortError(
            f"Port {port} of {host} is in use.", "Choose another one with --port, or end the program that uses it."
        )
    if number == errno.EACCES:
        return PortError(f"Port {port} of {host} is not allowed for this user.", "Choose one of at least 1024.")
    reason = getattr(error, "strerror", None) or str(error)
    return PortError(f"The server cannot listen on {host}, port {port}: {reason}.", "Check --host.")


class _Protocol(H11Protocol):
    """A connection that is closed if its client sends headers or reads answers too slowly."""

    header_seconds = HEADER_SECONDS
    unread_seconds = UNREAD_SECONDS
    silent: ClassVar[dict[str, dict[_Protocol, None]]] = {}
    """Connections that wait for a request or the rest of one, by address, the longest waiting first."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._address = ""
        self._header_timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(0)  # it is paused as soon as the system's own buffer is full
        self._address = self.client[0] if self.client else ""
        self._await_request()
        self._await_headers()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._await_headers()
        else:
            _end(self._header_timer)
            self._header_timer = None
            if not self.cycle.more_body:
                self._is_heard()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete):
            self._await_request()
        if self.conn.their_state is not h11.IDLE or self.conn.trailing_data[0]:
            self._await_headers()  # the rest of a body that nobody reads is coming, or the next headers have begun

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._unread_timer is None:
            self._unread_timer = self.loop.call_later(self.unread_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        _end(self._unread_timer)
        self._unread_timer = None

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._is_heard()
        _end(self._header_timer)
        _end(self._unread_timer)

    def _await_request(self) -> None:
        """Count as waiting for a request; without this limit, silent connections would keep all others out."""
        others = self.silent.setdefault(self._address, {})
        others.pop(self, None)
        others[self] = None
        if len(others) > MAX_SILENT:
            oldest = next(iter(others))
            oldest._is_heard()  # noqa: SLF001 - of this class
            oldest.transport.abort()

    def _is_heard(self) -> None:
        others = self.silent.get(self._address, {})
        others.pop(self, None)
        if not others:
            self.silent.pop(self._address, None)

    def _await_headers(self) -> None:
        if self._header_timer is None:
            self._header_timer = self.loop.call_later(self.header_seconds, self.transport.abort)


def _end(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


class _Uvicorn(uvicorn.Server):
    """Ends on a signal: no new requests, some time for the running ones, then their proper end."""

    def __init__(
        self, config: uvicorn.Config, server: Server, grace_seconds: float, started: Callable[[], object]
    ) -> None:
        super().__init__(config)
        self._server, self._grace_seconds, self._started_callback = server, grace_seconds, started

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle the signals while the server runs; unlike uvicorn's own, they are not raised again afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread gets signals
            return
        taken = [one for one in _SIGNALS if signal.getsignal(one) is not signal.SIG_IGN]  # as `nohup` ignores one
        before = {one: signal.signal(one, self.handle_exit) for one in taken}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the shutdown; a second signal cancels the running replies."""
        if self.should_exit:
            self._server.cancel_all()
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._started_callback()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._server.stop()
        timer = asyncio.get_running_loop().call_later(self._grace_seconds, self._server.cancel_all)
        await super().shutdown(sockets)
        timer.cancel()


def make_server(
    server: Server,
    *,
    grace_seconds: float,
    started: Callable[[], object] = lambda: None,
    header_seconds: float = HEADER_SECONDS,
    unread_seconds: float = UNREAD_SECONDS,
) -> uvicorn.Server:
    """Make the server. Its `run` takes a list of sockets and returns after SIGINT, SIGTERM or SIGHUP.

    Args:
        grace_seconds: seconds that running replies have after the signal; a second signal cancels them.
        started: called once requests are accepted.
        header_seconds: see `HEADER_SECONDS`.
        unread_seconds: see `UNREAD_SECONDS`.
    """
    limits = {
        "header_seconds": header_seconds,
        "unread_seconds": unread_seconds,
        "silent": {},
    }
    config = uvicorn.Config(
        server.app,
        http=type("Protocol", (_Protocol,), limits),
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(grace_seconds) + LAST_SECONDS,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        limit_concurrency=MAX_CONNECTIONS,
        backlog=MAX_CONNECTIONS,
    )
    return _Uvicorn(config, server, grace_seconds, started)
