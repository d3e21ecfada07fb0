"""The process that holds a base model and its adapters, as its parent sees it."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING, Any, Literal

from llf_core.chat.events import Failed, Finished, read_event
from llf_core.launch.exit_reason import signal_name
from llf_core.launch.local_process import computing_environment
from llf_core.runs.foreign_code import RUN_VALUE, VARIABLE
from llf_core.runs.plain_text import without_escapes
from llf_core.untrusted import brief

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llf_core.chat.events import Event
    from llf_core.chat.request import ChatRequest

MODULE = "llf_core.chat.worker_process"
CLOSE_SECONDS = 5.0
"""Time that a process has to end by itself before it is killed."""
Phase = Literal["stopped", "starting", "ready", "failed"]


@dataclass(frozen=True)
class EngineState:
    """What an engine process is doing, for views.

    Attributes:
        phase: `stopped` (not started, idle for too long, or closed), `starting`, `ready` or `failed`.
        progress: what it is loading, while it is starting.
        reason: why it stopped or failed, and what to do.
        memory_bytes: resident memory of the process, and on a GPU the memory that torch holds there.
        weight_bytes: memory of the weights, adapters included.
        context: number of tokens that the model reads at most; None if its config does not say.
        device: `cuda`, `mps` or `cpu`; empty until it is ready.
        dtype: dtype of the weights.
        sees_images: whether messages may have pictures.
        thinks: whether its chat template has a section for thinking.
        calls_tools: whether its chat template takes functions, and its calls can be read.
        plain: why the model is run one request after the other; None if it is not.
        code: code that is not allowed, if that is why it failed; see `llf_core.runs.foreign_code.ForeignCode.json`.
    """

    phase: Phase = "stopped"
    progress: str = ""
    reason: str = ""
    memory_bytes: int = 0
    weight_bytes: int = 0
    context: int | None = None
    device: str = ""
    dtype: str = ""
    sees_images: bool = False
    thinks: bool = False
    calls_tools: bool = False
    plain: str | None = None
    code: tuple[dict[str, Any], ...] = ()


class EngineProcess:
    """A running `python -m llf_core.chat.worker_process`: one base model, any number of adapters.

    It ends with its parent, since it reads its requests from a pipe, and by itself after some time without a request.

    Args:
        config: YAML of the settings with which the base model is loaded; see `llf_core.chat.target.Target.config`.
        home: `LLF_HOME`; None for the environment's.
        idle_seconds: time without a request after which the process ends and its memory is free.
        max_waiting: maximum number of requests that have not ended; another one fails at once.
        trust: whether Python code of the models may run that has not been allowed yet.
        on_state: called in a background thread with each new state.

    Raises:
        OSError: the process cannot be started.
        HomeError: `LLF_HOME` begins with `~`, and the home of that user is unknown.
    """

    def __init__(  # noqa: PLR0913 - the settings of a service
        self,
        config: str,
        *,
        home: Path | None = None,
        idle_seconds: float = 600.0,
        max_waiting: int = 256,
        trust: bool = False,
        on_state: Callable[[EngineState], object] = lambda _: None,
    ) -> None:
        self._ids = itertools.count(1)
        self._running: dict[int, Callable[[Event], object]] = {}
        self._lock = threading.Lock()
        self._max_waiting = max_waiting
        self._on_state = on_state
        self._state = EngineState("starting", "Starting the process")
        self._adapters: set[str] = set()
        self._closing = False
        env = computing_environment(os.environ | ({} if home is None else {"LLF_HOME": str(home)}))
        env[VARIABLE] = RUN_VALUE if trust else ""
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the process has ended
        self._process = subprocess.Popen(  # noqa: S603 - a module of this package
            [sys.executable, "-P", "-m", MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,  # an interrupt of the notebook does not end it
            env=env,
        )
        self._thread = threading.Thread(target=self._listen, daemon=True, name="llf-chat")
        self._thread.start()
        self._send({"start": {"config": config, "idle_seconds": idle_seconds}})

    @property
    def state(self) -> EngineState:
        """What the process is doing."""
        return self._state

    @property
    def pid(self) -> int:
        """The process id, by which tests and views find its memory."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it takes requests: it has neither ended nor been told to."""
        return not self._closing and self._process.poll() is None and self._state.phase in {"starting", "ready"}

    def load_adapter(self, name: str, folder: str) -> None:
        """Load an adapter onto the base model, once; later requests name it.

        Args:
            name: its name in requests.
            folder: its folder or hub id. If it cannot be loaded, the requests that name it fail with the reason.
        """
        with self._lock:
            if name in self._adapters:
                return
            self._adapters.add(name)
        self._send({"load_adapter": {"name": name, "folder": folder}})

    def unload_adapter(self, name: str) -> None:
        """Remove an adapter once its requests have ended, and free its memory.

        Args:
            name: its name.
        """
        with self._lock:
            if name not in self._adapters:
                return
            self._adapters.discard(name)
        self._send({"unload_adapter": name})

    def submit(self, request: ChatRequest, on_event: Callable[[Event], object]) -> int:
        """Ask for a reply. Returns at once, also while the model is still loading.

        Args:
            request: the request.
            on_event: called in a background thread with each event; the last one is `Finished` or `Failed`.

        Returns:
            The id by which it can be cancelled.
        """
        with self._lock:
            number = next(self._ids)
            full = len(self._running) >= self._max_waiting
            ended = not self.alive
            if not full and not ended:
                self._running[number] = on_event
        if full:
            on_event(
                Failed("busy", f"{self._max_waiting} requests are waiting already.", "Wait until some have ended.")
            )
        elif ended:
            on_event(self._gone())
        else:
            self._send({"request": {"id": number, **request.json()}})
        return number

    def cancel(self, number: int) -> None:
        """End a reply at its next token; its last event is then `Finished("cancelled")`.

        Args:
            number: what `submit` returned. A reply that has ended is left as it is.
        """
        with self._lock:
            known = number in self._running
        if known:
            self._send({"cancel": number})

    def close(self) -> None:
        """End the process, and its replies with `Failed`; returns after at most 5 s."""
        self._closing = True
        with suppress(OSError, ValueError):
            assert self._process.stdin is not None  # noqa: S101 - opened above
            self._process.stdin.close()
        try:
            self._process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
        if threading.current_thread() is not self._thread:
            self._thread.join(CLOSE_SECONDS)

    def _send(self, message: dict[str, Any]) -> None:
        line = json.dumps(message).encode() + b"\n"
        try:
            assert self._process.stdin is not None  # noqa: S101 - opened above
            with self._lock:
                self._process.stdin.write(line)
                self._process.stdin.flush()
        except (OSError, ValueError):
            pass  # it has ended; `_listen` says why

    def _listen(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - opened above
        for line in self._process.stdout:
            try:
                message = json.loads(line)
            except ValueError:
                continue  # it was killed within the line
            if "state" in message:
                message["state"]["code"] = tuple(message["state"].get("code", ()))
                self._set(replace(self._state, **message["state"]))
            elif "id" in message:
                self._dispatch(message.pop("id"), read_event(message))
            elif "idle" in message:
                self._end_if_idle(message["idle"])
        code = self._process.wait()
        if self._state.phase != "failed":
            stopped = self._closing or code == 0
            reason = self._state.reason if stopped else self._exit_message(code)
            phase: Phase = "stopped" if stopped else "failed"
            self._set(replace(self._state, phase=phase, reason=reason, progress="", memory_bytes=0))
        with self._lock:
            left, self._running = self._running, {}
        self._errors.close()
        for on_event in left.values():
            on_event(self._gone())

    def _end_if_idle(self, seconds: float) -> None:
        """End the process, unless a request is on its way to it."""
        with self._lock:
            if self._running or self._closing:
                return
            self._closing = True
        self._state = replace(
            self._state, reason=f"No question for {seconds / 60:g} min: the process ended, and its memory is free."
        )
        with suppress(OSError, ValueError):
            assert self._process.stdin is not None  # noqa: S101 - opened above
            self._process.stdin.close()

    def _dispatch(self, number: int, event: Event) -> None:
        ends = isinstance(event, Finished | Failed)
        with self._lock:
            on_event = self._running.pop(number, None) if ends else self._running.get(number)
        if on_event is not None:
            on_event(event)

    def _set(self, state: EngineState) -> None:
        self._state = state
        self._on_state(state)

    def _gone(self) -> Failed:
        state = self._state
        if state.phase == "failed":
            return Failed("untrusted" if state.code else "engine", state.reason or "The engine failed.")
        return Failed("engine", "The engine was closed before the reply was complete.", "Ask again.")

    def _exit_message(self, code: int) -> str:
        if code < 0:
            name = signal_name(-code)
            return f"The process with the model was ended by {name}. Check that enough memory is free, and ask again."
        self._errors.seek(0)
        lines = without_escapes(self._errors.read().decode("utf-8", "replace")).strip().splitlines()
        return f"The process with the model failed: {brief(lines[-1]) if lines else f'exit code {code}'}"
