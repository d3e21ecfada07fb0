"""Metrics of the server in Prometheus's text format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from llf_core.chat.events import Finished

if TYPE_CHECKING:
    from llf_core.chat.events import Failed

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
