"""LLF's own engine, from its parent's side: the process with the model, and one that prepares large requests."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import IO, TYPE_CHECKING, Any

from llf_core.chat.chat_engine import ChatEngine
from llf_core.chat.prompt import characters_of, has_images, too_long
from llf_core.chat.request import ChatRequest, ChatSampling, Failed, Finished, read_event
from llf_core.launch.supervisor import signal_name
from llf_core.runs.formatting import without_escapes
from llf_core.untrusted import brief

if TYPE_CHECKING:
    from collections.abc import Callable

    from llf_core.chat.chat_engine import EngineSettings, EngineState, Phase

MODULE = "llf_core.chat.worker_process"

MAX_DIRECT = 20_000
"""Maximum length of a request that the process prepares itself between two steps, in some milliseconds."""

CLOSE_SECONDS = 5.0
"""Time that a process has to end by itself before it is killed."""


class EngineProcess(ChatEngine):
    """A running `python -m llf_core.chat.worker_process`: one base model, any number of adapters.

    It ends with its parent, whose pipe it reads, and by itself after some time without a request.
    """

    def __init__(self, config: str, settings: EngineSettings, on_state: Callable[[EngineState], object]) -> None:
        super().__init__(config, settings, on_state)
        self._adapters: dict[str, str] = {}
        self._preparer = Preparer(config, settings, self._prepared)
        self._pipe = threading.Lock()
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the process has ended
        self.process = self._process = subprocess.Popen(  # noqa: S603 - a module of this package
            [sys.executable, "-P", "-m", MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,  # an interrupt of the notebook does not end it
            env=settings.environment(),
        )
        self._thread = threading.Thread(target=self._listen, daemon=True, name="llf-chat")
        self._thread.start()
        self._send({"start": {"config": config, "idle_seconds": settings.idle_seconds, "template": settings.template}})

    def load_adapter(self, name: str, folder: str) -> None:
        """See `ChatEngine.load_adapter`; it is loaded between two tokens."""
        with self.lock:
            known = self._adapters.get(name)
            if known == folder:
                return
            self._adapters[name] = folder
        if known is not None:
            self._send({"unload_adapter": name})
        self._send({"load_adapter": {"name": name, "folder": folder}})

    def unload_adapter(self, name: str) -> None:
        """See `ChatEngine.unload_adapter`."""
        with self.lock:
            if name not in self._adapters:
                return
            del self._adapters[name]
        self._send({"unload_adapter": name})

    def begin(self, number: int, request: ChatRequest) -> None:
        """See `ChatEngine.begin`. Long requests, and those with a JSON schema, are prepared by `Preparer` first."""
        context, longest = self.state.context, self.state.longest_token
        if context is not None and longest and (tokens := characters_of(request) // longest) >= context:
            self.dispatch(number, too_long(tokens, context, "at least "))
            return
        body = {"request": {"id": number, **request.json()}}
        line = json.dumps(body)
        if request.json_schema is None and (len(line) <= MAX_DIRECT or has_images(request)):
            self._write(line)
            return
        with self.lock:
            folder = self._adapters.get(request.adapter or "")
        self._preparer.submit(number, request, folder, context)

    def _prepared(self, number: int, found: ChatRequest | Failed) -> None:
        if isinstance(found, Failed):
            self.dispatch(number, found)
        else:
            self._send({"request": {"id": number, **found.json()}})

    def interrupt(self, number: int) -> None:
        """See `ChatEngine.interrupt`."""
        if self._preparer.cancel(number):
            self.dispatch(number, Finished("cancelled", 0, 0, 0, 0.0, 0.0))
        else:
            self._send({"cancel": number})

    def close(self) -> None:
        """See `ChatEngine.close`."""
        self.closing = True
        if self._pipe.acquire(timeout=CLOSE_SECONDS):  # a process that reads nothing holds up whoever writes
            self._close_pipe()
            self._pipe.release()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(CLOSE_SECONDS)
        self._process.kill()  # no effect on one that has ended
        if threading.current_thread() is not self._thread:
            self._thread.join(CLOSE_SECONDS)

    def _send(self, message: dict[str, object]) -> None:
        self._write(json.dumps(message))

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None  # noqa: S101 - opened above
        with suppress(OSError, ValueError), self._pipe:  # it has ended: `_listen` says why
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()

    def _close_pipe(self) -> None:
        assert self._process.stdin is not None  # noqa: S101 - opened above
        with suppress(OSError, ValueError):
            self._process.stdin.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - opened above
        for line in self._process.stdout:
            try:
                message = json.loads(line)
            except ValueError:
                continue  # it was killed within the line
            if "state" in message:
                message["state"]["code"] = tuple(message["state"].get("code", ()))
                self.tell(replace(self.state, **message["state"]))
            elif "event" in message:
                self.dispatch(message["id"], read_event(message["event"]))
            elif "idle" in message:
                self._end_if_idle(message["idle"])
        code = self._process.wait()
        self._preparer.close()
        if self.state.phase != "failed":
            stopped = self.closing or code == 0
            reason = self.state.reason if stopped else self._exit_message(code)
            phase: Phase = "stopped" if stopped else "failed"
            self.tell(replace(self.state, phase=phase, reason=reason, progress="", memory_bytes=0))
        self._errors.close()
        self.end_requests()

    def _end_if_idle(self, seconds: float) -> None:
        """End the process, unless a request is on its way to it."""
        with self.lock:
            if self.running or self.closing:
                return
            self.closing = True
        reason = f"No question for {seconds / 60:g} min: the process ended, and its memory is free."
        self._state = replace(self._state, reason=reason)
        self._close_pipe()

    def _exit_message(self, code: int) -> str:
        if code < 0:
            name = signal_name(-code)
            return f"The process with the model was ended by {name}. Check that enough memory is free, and ask again."
        self._errors.seek(0)
        lines = without_escapes(self._errors.read().decode("utf-8", "replace")).strip().splitlines()
        return f"The process with the model failed: {brief(lines[-1]) if lines else f'exit code {code}'}"


PREPARATION = "llf_core.chat.preparation_worker"

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
            [sys.executable, "-P", "-m", PREPARATION],
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
