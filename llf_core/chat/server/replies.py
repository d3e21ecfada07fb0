"""Replies to one call as events, with a bound on what a slow client leaves unread, and metrics for Prometheus."""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Self

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from llf_core.chat.request import Failed, Finished, Started

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from llf_core.chat.request import ChatRequest, Event
    from llf_core.chat.service import ChatService, Ticket


MAX_UNREAD = 4096
"""Maximum number of events that wait for a client; a slower one loses its reply."""
TOO_SLOW = Failed("engine", f"The reply was cancelled: {MAX_UNREAD:,} of its parts waited for the client to read them.")
STOPPING = Failed("engine", "The reply was cancelled, since the server is shutting down. Send the request again later.")
CANCELLED = Failed("engine", "The reply was cancelled: its model was removed or stopped. Send the request again.")
_THREADS = ThreadPoolExecutor(4, "llf-serve")


class Replies:
    """The replies of one call, one for each choice, as an asynchronous context manager.

    Entering it submits the requests; leaving it cancels those that have not ended.
    """

    def __init__(
        self,
        service: ChatService,
        model: str,
        requests: Sequence[ChatRequest],
        metrics: Metrics,
        open_calls: set[Replies],
    ) -> None:
        self._service, self._model, self._requests = service, model, requests
        self._metrics, self._open_calls = metrics, open_calls
        self._tickets: list[Ticket | None] = [None] * len(requests)
        self._left = set(range(len(requests)))
        self._began: set[int] = set()
        self._cancelled: set[int] = set()
        self._unread: deque[tuple[int, Event]] = deque()
        self._wake = asyncio.Event()
        self._closed = self._failed = False

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._open_calls.add(self)
        for _ in self._requests:
            self._metrics.submitted(self._model)
        try:
            await asyncio.shield(self._loop.run_in_executor(_THREADS, self._submit))
        except BaseException:  # what `submit` raises is no reason to leave others running
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._open_calls.discard(self)
        self._closed = True
        for number in sorted(self._left):
            self.cancel(number)
            self._metrics.ended(self._model, None, began=number in self._began)
        self._left.clear()

    async def batches(self) -> AsyncIterator[list[tuple[int, Event]]]:
        """Events with the numbers of their choices, as many at once as have come, until all replies have ended."""
        while self._left or self._unread:
            await self._wake.wait()
            self._wake.clear()
            batch = list(self._unread)
            self._unread.clear()
            if batch:
                yield batch

    def cancel(self, number: int) -> None:
        """End a reply at its next token; its last event still comes."""
        self._cancelled.add(number)
        self._loop.run_in_executor(_THREADS, self._cancel, number)

    def fail(self, failure: Failed) -> None:
        """Cancel all replies that have not ended, with `failure` as their last event."""
        for number in sorted(self._left):
            self.cancel(number)
            self._put(number, failure)

    def _submit(self) -> None:
        """Submit the requests, in a thread: the pipe to an engine may be full."""
        for number, request in enumerate(self._requests):
            if self._failed or self._closed:
                return  # the answer is an error
            self._tickets[number] = self._service.submit(self._model, request, partial(self._receive, number))
            if number in self._cancelled:
                self._cancel(number)

    def _cancel(self, number: int) -> None:
        ticket = self._tickets[number]
        if ticket is not None:
            ticket.cancel()

    def _receive(self, number: int, event: Event) -> None:
        """Take an event in a thread of the service."""
        self._failed = self._failed or isinstance(event, Failed)
        try:
            self._loop.call_soon_threadsafe(self._put, number, event)
        except RuntimeError:
            return  # the loop has ended, and with it the server

    def _put(self, number: int, event: Event) -> None:
        if self._closed or number not in self._left:
            return
        if isinstance(event, Finished | Failed):
            self._left.discard(number)
            self._metrics.ended(self._model, event, began=number in self._began)
        elif len(self._unread) >= MAX_UNREAD:
            self._unread.clear()
            self.fail(TOO_SLOW)
            return
        elif isinstance(event, Started) and number not in self._began:
            self._began.add(number)
            self._metrics.started(self._model)
        self._unread.append((number, event))
        self._wake.set()


CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Upper bounds of the histograms' buckets."""
_OF_MODEL = ("model",)


class Metrics:
    """Counts requests, replies and tokens. All methods are called in the server's loop."""

    def __init__(self) -> None:
        self._registry = one = CollectorRegistry()
        self._requests = Counter(
            "llf_http_requests", "HTTP requests by route and status.", ("route", "status"), registry=one
        )
        self._replies = Counter("llf_replies", "Replies by how they ended.", ("model", "ended"), registry=one)
        self._prompt = Counter("llf_prompt_tokens", "Tokens of prompts.", _OF_MODEL, registry=one)
        self._cached = Counter(
            "llf_cached_prompt_tokens", "Tokens of prompts that were cached.", _OF_MODEL, registry=one
        )
        self._completion = Counter("llf_completion_tokens", "Tokens of replies.", _OF_MODEL, registry=one)
        self._waiting = Gauge("llf_replies_waiting", "Replies that have not begun.", _OF_MODEL, registry=one)
        self._running = Gauge("llf_replies_running", "Replies that have begun and not ended.", _OF_MODEL, registry=one)
        self._first = Histogram(
            "llf_first_token_seconds",
            "Time to the first token, with waiting.",
            _OF_MODEL,
            buckets=SECONDS,
            registry=one,
        )
        self._seconds = Histogram(
            "llf_reply_seconds", "Time to the last token, with waiting.", _OF_MODEL, buckets=SECONDS, registry=one
        )

    def answered(self, route: str, status: int) -> None:
        """Count an HTTP request."""
        self._requests.labels(route, str(status)).inc()

    def submitted(self, model: str) -> None:
        """Count a reply that waits."""
        self._waiting.labels(model).inc()

    def started(self, model: str) -> None:
        """Count a reply that has begun, and no longer waits."""
        self._waiting.labels(model).dec()
        self._running.labels(model).inc()

    def ended(self, model: str, event: Finished | Failed | None, *, began: bool) -> None:
        """Count an ended reply, with its tokens and times if it is complete; `event` is None if its client is gone."""
        (self._running if began else self._waiting).labels(model).dec()
        if not isinstance(event, Finished):
            self._replies.labels(model, "client_gone" if event is None else event.kind).inc()
            return
        self._replies.labels(model, event.reason).inc()
        self._prompt.labels(model).inc(event.prompt_tokens)
        self._cached.labels(model).inc(event.cached_tokens)
        self._completion.labels(model).inc(event.completion_tokens)
        self._first.labels(model).observe(event.first_token_seconds)
        self._seconds.labels(model).observe(event.seconds)

    def text(self) -> bytes:
        """The metrics in Prometheus's text format."""
        return generate_latest(self._registry)
