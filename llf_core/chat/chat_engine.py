"""The abstract class of the plug-in kind `chat_engine`, which holds a model and replies."""

from __future__ import annotations

import itertools
import logging
import os
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from llf_core.chat.request import Failed, Finished
from llf_core.launch.local_process import computing_environment
from llf_core.runs.foreign_code import RUN_VALUE, VARIABLE

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from llf_core.chat.request import ChatRequest, Event

logger = logging.getLogger(__name__)

Phase = Literal["stopped", "starting", "ready", "failed"]


@dataclass(frozen=True)
class EngineState:
    """What an engine is doing, for views.

    Attributes:
        phase: `stopped` (not started, idle for too long, or closed), `starting`, `ready` or `failed`.
        progress: what it is loading, while it is starting.
        reason: why it stopped or failed, and what to do.
        memory_bytes: resident memory of the process, and on a GPU the memory that torch holds there; 0 if unknown.
        weight_bytes: memory of the weights; 0 if unknown.
        context: maximum number of tokens that the model reads; None if its config does not say.
        longest_token: maximum number of characters that become one token; None if unknown.
        device: `cuda`, `mps` or `cpu`; empty until it is ready.
        dtype: data type of the weights; empty until it is ready.
        sees_images: whether messages may have pictures.
        thinks: whether its chat template has a section for reasoning.
        calls_tools: whether its chat template takes functions, and its calls can be read.
        plain: why the model runs one request after the other; None if it does not.
        code: code that is not allowed, if it failed for that; see `llf_core.runs.foreign_code.ForeignCode.json`.
    """

    phase: Phase = "stopped"
    progress: str = ""
    reason: str = ""
    memory_bytes: int = 0
    weight_bytes: int = 0
    context: int | None = None
    longest_token: int | None = None
    device: str = ""
    dtype: str = ""
    sees_images: bool = False
    thinks: bool = False
    calls_tools: bool = False
    plain: str | None = None
    code: tuple[dict[str, Any], ...] = ()

    @property
    def is_blind(self) -> bool:
        """Whether the model is known to read no pictures; unknown before it is loaded."""
        return self.phase == "ready" and not self.sees_images


@dataclass(frozen=True)
class EngineSettings:
    """How a service runs its engines.

    Attributes:
        home: `LLF_HOME`; None for the environment's.
        idle_seconds: time without a request after which an engine ends and its memory is free.
        max_waiting: maximum number of requests of an engine that have not ended; another one fails at once.
        trust: whether Python code of the models may run that has not been allowed yet.
        template: name of a chat template for the base model, used if its tokenizer has none.
    """

    home: Path | None = None
    idle_seconds: float = 600.0
    max_waiting: int = 256
    trust: bool = False
    template: str | None = None

    def environment(self) -> dict[str, str]:
        """Environment of an engine's processes: that of this process, with `home` and `trust`."""
        given = {} if self.home is None else {"LLF_HOME": str(self.home)}
        return computing_environment(os.environ | given) | {VARIABLE: RUN_VALUE if self.trust else ""}


class ChatEngine(ABC):
    """Holds one base model and any number of adapters in a process of its own. All methods may be called in any thread.

    Args:
        config: YAML of the settings with which the base model is loaded; see `llf_core.chat.target.Target.config`.
        on_state: called in a background thread with each new state.

    Attributes:
        process: its process; None for an engine without one.
        closing: whether it is being closed; `close` sets it, so that no request is taken any more.
        running: the listener of each open request, by the id of the request.
        lock: held while `running` is read or changed.
    """

    process: subprocess.Popen[bytes] | None = None

    def __init__(self, config: str, settings: EngineSettings, on_state: Callable[[EngineState], object]) -> None:
        self.config, self.settings = config, settings
        self.closing = False
        self.running: dict[int, Callable[[Event], object]] = {}
        self.lock = threading.Lock()
        self._ids = itertools.count(1)
        self._on_state = on_state
        self._state = EngineState("starting", "Starting the process")

    @property
    def state(self) -> EngineState:
        """What the engine is doing; changed by `tell`."""
        return self._state

    @property
    def alive(self) -> bool:
        """Whether it takes requests: it has neither ended nor been closed. Otherwise a service starts a new engine."""
        running = self.process is None or self.process.poll() is None
        return running and not self.closing and self.state.phase in {"starting", "ready"}

    @abstractmethod
    def load_adapter(self, name: str, folder: str) -> None:
        """Load an adapter onto the base model, once, for requests that name it; another folder takes the name over.

        Args:
            folder: its folder or hub id. If it cannot be loaded, the requests that name it fail with the reason.
        """

    @abstractmethod
    def unload_adapter(self, name: str) -> None:
        """Remove an adapter and free its memory. Its open replies may end with `Failed`."""

    @abstractmethod
    def begin(self, number: int, request: ChatRequest) -> None:
        """Begin a reply; its events go to `dispatch`. `submit` calls it for requests that the engine takes."""

    @abstractmethod
    def interrupt(self, number: int) -> None:
        """End a reply at its next token; its last event is then `Finished("cancelled")`, unless it ends before.

        `cancel` calls it, perhaps more than once, while the model is loading, and for a request that has just ended.
        """

    @abstractmethod
    def close(self) -> None:
        """End the process, and its replies with `Failed`, to free its memory; returns after at most 10 s."""

    def submit(self, request: ChatRequest, on_event: Callable[[Event], object]) -> int:
        """Request a reply. Returns at once, also while the model is still loading.

        Args:
            on_event: called in a background thread with each event; the last one is `Finished` or `Failed`. If the
                engine has ended or has too many requests, it is called with `Failed` at once, in this thread; if the
                reply is cancelled while the model is loading, in the thread of `cancel`.
        """
        most = self.settings.max_waiting
        with self.lock:
            number = next(self._ids)
            full, ended = len(self.running) >= most, not self.alive
            if not full and not ended:
                self.running[number] = on_event
        if full:
            on_event(Failed("busy", f"{most} requests are waiting already.", "Wait until some have ended."))
        elif ended:
            on_event(self.ended())
        else:
            try:
                self.begin(number, request)
            except BaseException:
                with self.lock:
                    self.running.pop(number, None)
                raise
        return number

    def cancel(self, number: int) -> None:
        """End a reply at its next token, or at once while the model is loading, with `Finished("cancelled")`.

        Args:
            number: what `submit` returned. A reply that has ended is left as it is.
        """
        with self.lock:
            known = number in self.running
        if not known:
            return
        self.interrupt(number)
        if self.state.phase == "starting":
            self.dispatch(number, Finished("cancelled", 0, 0, 0, 0.0, 0.0))

    def dispatch(self, number: int, event: Event) -> None:
        """Pass an event to the listener of a request. What the listener raises is logged, so that other replies go on.

        Args:
            number: the id of the request; events of one that has ended are dropped.
            event: the event; `Finished` and `Failed` end the request.
        """
        ends = isinstance(event, Finished | Failed)
        with self.lock:
            on_event = self.running.pop(number, None) if ends else self.running.get(number)
        if on_event is not None:
            _call(on_event, event)

    def tell(self, state: EngineState) -> None:
        """Change the state, and pass it to `on_state`. What that raises is logged."""
        self._state = state
        _call(self._on_state, state)

    def end_requests(self) -> None:
        """End all requests with the reason why the engine has ended."""
        with self.lock:
            left, self.running = self.running, {}
        for on_event in left.values():
            _call(on_event, self.ended())

    def ended(self) -> Failed:
        """The last event of a request after the engine has ended, with the reason."""
        state = self._state
        if state.phase == "failed":
            return Failed("untrusted" if state.code else "engine", state.reason or "The engine failed.")
        return Failed("engine", "The engine was closed before the reply was complete.", "Ask again.")


def _call(listener: Callable[[Any], object], value: object) -> None:
    """Call a listener in a thread of an engine, which goes on whatever it raises."""
    try:
        listener(value)
    except Exception:
        logger.exception("A listener of a chat engine has failed.")
