"""Prepares large requests in a process of its own, so that their cost cannot hold up an engine."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from llf_core.chat.events import Failed
from llf_core.chat.prompt import has_images
from llf_core.chat.request import ChatRequest, ChatSampling

if TYPE_CHECKING:
    from collections.abc import Callable

    from llf_core.chat.chat_engine import EngineSettings

MODULE = "llf_core.chat.preparation_worker"
MAX_WAITING_BYTES = 64 << 20
"""Bytes of the requests that wait; another one fails as `busy`."""
SMALL_BYTES = 1 << 16
_NO_MEMORY = {3, -signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS}
"""Exit codes of a child that is out of memory: `NO_MEMORY`, or a library aborts."""
_TIME = {-signal.SIGPROF, -signal.SIGKILL}


@dataclass
class _Job:
    """A prompt to prepare, for all requests that differ in their sampling only.

    Attributes:
        key: the request without the fields that its prompt does not depend on.
    """

    key: ChatRequest
    adapter: str | None
    body: bytes
    requests: dict[int, ChatRequest] = field(default_factory=dict)

    @property
    def is_small(self) -> bool:
        return len(self.body) <= SMALL_BYTES


class Preparer:
    """Has the prompts and schemas of requests prepared, one large and one small one at once, small ones first.

    The process starts with the first request. All methods may be called in any thread.

    Args:
        on_ready: called with the number of a request and the prepared request, or why it failed, in another thread.
    """

    def __init__(
        self, config: str, settings: EngineSettings, on_ready: Callable[[int, ChatRequest | Failed], object]
    ) -> None:
        self._start_line = json.dumps({"config": config, "template": settings.template}).encode() + b"\n"
        self._environment = settings.environment()
        self._on_ready = on_ready
        self._lock = threading.Lock()
        self._waiting: list[_Job] = []
        self._running: dict[int, _Job] = {}
        self._next = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._context: int | None = None

    def submit(self, number: int, request: ChatRequest, adapter: str | None, context: int | None) -> None:
        """Have a request prepared; `adapter` is a folder, `context` the model's context length."""
        asked = request
        if has_images(request):  # the engine's processor makes the prompt
            asked = ChatRequest(prompt="-", json_schema=request.json_schema)
        key = replace(asked, sampling=ChatSampling(), adapter=adapter)
        with self._lock:
            known = next((one for one in [*self._waiting, *self._running.values()] if one.key == key), None)
            if known is not None:
                known.requests[number] = request
                return
        body = json.dumps(key.json()).encode()
        with self._lock:
            full = sum(len(one.body) for one in self._waiting) + len(body) > MAX_WAITING_BYTES
            if not full:
                self._context = context
                self._waiting.append(_Job(key, adapter, body, {number: request}))
                if self._process is None:
                    self._start()
                self._send_next()
        if full:
            self._on_ready(
                number, Failed("busy", "Too many large requests are waiting.", "Wait until some have ended.")
            )

    def cancel(self, number: int) -> bool:
        """Forget a request; returns whether it was still being prepared."""
        with self._lock:
            for job in [*self._waiting, *self._running.values()]:
                if job.requests.pop(number, None) is not None:
                    self._waiting = [one for one in self._waiting if one.requests]
                    return True
        return False

    def close(self) -> None:
        """Close the pipe of the process, which ends it."""
        self._lines.put(None)

    def _start(self) -> None:
        self._process = process = subprocess.Popen(  # noqa: S603 - a module of this package
            [sys.executable, "-P", "-m", MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=self._environment,
        )
        lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._lines = lines
        lines.put(self._start_line)
        for work in (_write, self._listen):
            threading.Thread(target=work, args=(process, lines), daemon=True, name="llf-prepare").start()

    def _send_next(self) -> None:
        """Send the smallest of the small requests, and the oldest of the large ones, if none of its kind is running."""
        for is_small in (True, False):
            fitting = [one for one in self._waiting if one.is_small == is_small]
            if not fitting or any(one.is_small == is_small for one in self._running.values()):
                continue
            found = min(fitting, key=lambda one: len(one.body)) if is_small else fitting[0]
            self._waiting.remove(found)
            self._next += 1
            self._running[self._next] = found
            head = {
                "id": self._next,
                "adapter": found.adapter,
                "context": self._context,
                "has_schema": found.key.json_schema is not None,
            }
            self._lines.put(json.dumps(head).encode() + b"\n" + found.body + b"\n")

    def _listen(self, process: subprocess.Popen[bytes], lines: queue.SimpleQueue[bytes | None]) -> None:
        assert process.stdout is not None  # noqa: S101 - opened by `_start`
        for line in process.stdout:
            answer = json.loads(line)
            with self._lock:
                job = self._running.pop(answer["id"])
                requests = dict(job.requests)
                job.requests.clear()
                self._send_next()
            for number, request in requests.items():
                self._on_ready(number, _result(request, answer))
        lines.put(None)
        process.wait()
        process.stdout.close()
        with self._lock:
            jobs, self._waiting, self._running = [*self._waiting, *self._running.values()], [], {}
            self._process = None
        for job in jobs:
            for number in job.requests:
                self._on_ready(number, Failed("engine", "The process that prepares prompts ended.", "Ask again."))


def _write(process: subprocess.Popen[bytes], lines: queue.SimpleQueue[bytes | None]) -> None:
    """Write lines in a thread of their own: the process may be writing an answer before it reads."""
    assert process.stdin is not None  # noqa: S101 - opened by `_start`
    with suppress(OSError):  # it has ended: `_listen` says so
        while (line := lines.get()) is not None:
            process.stdin.write(line)
            process.stdin.flush()
    with suppress(OSError):
        process.stdin.close()


def _result(request: ChatRequest, answer: dict[str, Any]) -> ChatRequest | Failed:
    if "failed" in answer:
        return Failed(**answer["failed"])
    if "ended" in answer:
        what = "json_schema" if request.json_schema is not None else "The prompt"
        if answer["ended"] in _TIME:
            return Failed("invalid", f"{what} takes too long to prepare.", "Expected a shorter or simpler one.")
        if answer["ended"] in _NO_MEMORY:
            return Failed("invalid", f"{what} takes too much memory to prepare.", "Expected a shorter or simpler one.")
        return Failed("engine", f"The prompt cannot be prepared (exit code {answer['ended']}).", "Ask again.")
    if has_images(request):
        return request
    return replace(
        request,
        messages=(),
        prompt=None,
        template_options={},
        token_ids=tuple(answer["token_ids"]),
        rendered=answer["rendered"],
    )
