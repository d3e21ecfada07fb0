"""LLF's own engine: the process with the model, from its parent's side."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import replace
from typing import IO, TYPE_CHECKING

from llf_core.chat.chat_engine import ChatEngine
from llf_core.chat.events import Failed, Finished, read_event
from llf_core.chat.preparer import Preparer
from llf_core.chat.prompt import characters_of, has_images, too_long
from llf_core.launch.exit_reason import signal_name
from llf_core.runs.plain_text import without_escapes
from llf_core.untrusted import brief

if TYPE_CHECKING:
    from collections.abc import Callable

    from llf_core.chat.chat_engine import EngineSettings, EngineState, Phase
    from llf_core.chat.request import ChatRequest

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
