"""The models that a view, a server or a command talks to, by name."""

from __future__ import annotations

import importlib.util
import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llf_core.chat.chat_engine import ChatEngine, EngineSettings, EngineState
from llf_core.chat.request import Failed, Finished
from llf_core.chat.target import Target, TargetError, find_target, loading_config
from llf_core.config.declaration import ChatEngineDeclaration
from llf_core.config.registry import declared
from llf_core.models.errors import first_line
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llf_core.chat.request import ChatRequest, Event
    from llf_core.launch import Run
    from llf_core.runs import RunFolder


@dataclass
class Ticket:
    """A request that was submitted."""

    id: int
    _process: ChatEngine | None = None

    def cancel(self) -> None:
        """End the reply at its next token; without effect once it has ended."""
        if self._process is not None:
            self._process.cancel(self.id)


class ChatService:
    """Models by name: one engine process for each base model, with the adapters of its targets. Thread-safe.

    A process starts with its first request, and again after it has stopped or failed. Unknown names raise
    `TargetError`.

    Args:
        home: `LLF_HOME`; None for the environment's.
        idle_seconds: time without a request after which a process ends and its memory is free.
        max_waiting: maximum number of requests of a process that have not ended; another one fails at once.
        trust: whether Python code of the models may run that has not been allowed yet.
    """

    def __init__(
        self, *, home: Path | None = None, idle_seconds: float = 600.0, max_waiting: int = 256, trust: bool = False
    ) -> None:
        self.targets: dict[str, Target] = {}
        self._settings = EngineSettings(home, idle_seconds, max_waiting, trust)
        self._processes: dict[str, ChatEngine] = {}
        self._last: dict[str, EngineState] = {}
        self._generation: dict[str, int] = {}  # how many processes a base model has had
        self._watchers: list[Callable[[str, EngineState], object]] = []
        self._lock = threading.RLock()
        self._closed = False

    def add(self, target: str | Path | Run | RunFolder | Target, name: str | None = None) -> Target:
        """Add a model, see `find_target`; it is loaded with the first request that names it.

        Args:
            name: its name here; None for its own. A name that is taken gets a number.
        """
        found = target if isinstance(target, Target) else find_target(target, self._settings.home)
        with self._lock:
            wanted = name or found.name
            named, number = wanted, 2
            while named in self.targets:
                named, number = f"{wanted}-{number}", number + 1
            self.targets[named] = found = found.named(named)
        return found

    def remove(self, name: str) -> None:
        """Remove a model; its process ends with its last target, else its adapter is unloaded."""
        with self._lock:
            target = self.targets.pop(name, None)
        if target is not None:
            self._free(target)

    def replace(self, name: str, target: Target) -> Target:
        """Replace a model, for example by newer weights of a run; on the same base, its process goes on."""
        old, new = self._target(name), target.named(name)
        same = old.base_key == new.base_key
        with self._lock:
            process = self._processes.get(old.base_key)
        if same and process is not None and old.adapter is not None:
            process.unload_adapter(name)  # before a request can find its name taken
        with self._lock:
            self.targets[name] = new
            watchers, state = list(self._watchers), self._last.get(new.base_key, EngineState())
        if not same:
            self._free(old)
        # Its views show what the model is now. In a thread, since one of them may be waiting for this.
        threading.Thread(target=lambda: [told(name, state) for told in watchers], daemon=True).start()
        return new

    def _free(self, target: Target) -> None:
        """Free the memory of a removed target: its adapter, or its process if no other target needs it."""
        with self._lock:
            shared = any(one.base_key == target.base_key for one in self.targets.values())
            process = self._processes.get(target.base_key)
            if process is not None and not shared:
                del self._processes[target.base_key]
        if process is None:
            return
        if not shared:
            process.close()
        elif target.adapter is not None:
            process.unload_adapter(target.name)

    def start(self, name: str) -> None:
        """Begin to load a model in the background.

        Raises:
            TargetError: there is no such model, its engine is not installed, or the service was closed.
        """
        self._process_of(self._target(name))

    def submit(self, name: str, request: ChatRequest, on_event: Callable[[Event], object]) -> Ticket:
        """Request a reply; returns at once, also while the model is loading, with a ticket that can end the reply.

        Args:
            on_event: called in a background thread with each event; the last one is `Finished` or `Failed`. A request
                that cannot be submitted is reported as `Failed` at once, in this thread.
        """
        try:
            target = self._target(name)
            process = self._process_of(target)
        except TargetError as error:
            on_event(Failed("model_gone", error.message, error.what_to_do))
            return Ticket(0)
        except UserError as error:
            on_event(Failed("engine", error.message, error.what_to_do))
            return Ticket(0)
        except Exception as error:  # noqa: BLE001 - an engine may be another package's
            on_event(Failed("engine", f"The process of the model cannot be started: {first_line(error)}"))
            return Ticket(0)
        named = replace(request, adapter=name if target.adapter is not None else None)
        return Ticket(process.submit(named, on_event), process)

    def reply(self, name: str, request: ChatRequest) -> list[Event]:
        """Request a reply and wait for it; returns its events, the last one `Finished` or `Failed`."""
        events: list[Event] = []
        done = threading.Event()

        def receive(event: Event) -> None:
            events.append(event)
            if isinstance(event, Finished | Failed):
                done.set()

        ticket = self.submit(name, request, receive)
        try:
            done.wait()
        except BaseException:
            ticket.cancel()
            raise
        return events

    def state(self, name: str) -> EngineState:
        """State of the process of a model; `stopped` without a reason if it has not started yet."""
        return self._last.get(self._target(name).base_key, EngineState())

    def watch(self, on_state: Callable[[str, EngineState], object]) -> Callable[[], None]:
        """Follow the states of all models; returns a function that ends it.

        Args:
            on_state: called with a model's name and its new state: in a background thread, or, for the first state of a
                process, in the thread whose request starts it.
        """
        with self._lock:
            self._watchers.append(on_state)

        def end() -> None:
            with self._lock, suppress(ValueError):
                self._watchers.remove(on_state)

        return end

    def stop(self, name: str) -> None:
        """End the process of a model, for example to train on the device; the next request starts it again."""
        with self._lock:
            process = self._processes.pop(self._target(name).base_key, None)
        if process is not None:
            process.close()

    def close(self) -> None:
        """End all processes; requests then fail."""
        with self._lock:
            self._closed = True
            processes, self._processes = list(self._processes.values()), {}
        for process in processes:
            process.close()

    def _target(self, name: str) -> Target:
        target = self.targets.get(name)
        if target is None:
            names = ", ".join(self.targets) or "none"
            raise TargetError(f"No model is called {name[:200]!r}. Expected one of: {names}.")
        return target

    def _process_of(self, target: Target) -> ChatEngine:
        key = target.base_key
        with self._lock:
            if self._closed:
                raise TargetError("The chat was closed.", "Open it again.")
            process, generation = self._processes.get(key), 0
            if process is None or not process.alive:
                self._generation[key] = generation = self._generation.get(key, 0) + 1
                templates = (one.template for one in self.targets.values() if one.base_key == key)
                settings = replace(self._settings, template=next(filter(None, templates), None))
                process = self._processes[key] = _engine_class(target)(
                    target.config, settings, lambda state: self._tell(key, generation, state)
                )
                self._last[key] = process.state  # before a thread of the process can tell a later one
        if generation:
            self._notify(key)
        if target.adapter is not None:
            process.load_adapter(target.name, target.adapter)
        return process

    def _tell(self, key: str, generation: int, state: EngineState) -> None:
        with self._lock:
            if generation != self._generation.get(key):
                return  # of a process that another one has replaced
            self._last[key] = state
        self._notify(key)

    def _notify(self, key: str) -> None:
        """Pass the last state of the process of a base model to the watchers."""
        with self._lock:
            state = self._last[key]
            names = [name for name, target in self.targets.items() if target.base_key == key]
            watchers = list(self._watchers)
        for on_state in watchers:
            for name in names:
                on_state(name, state)


def _engine_class(target: Target) -> type[ChatEngine]:
    """The engine that a target's config names."""
    engine = declared(ChatEngineDeclaration)[loading_config(target.config).chat.infer_backend]
    if engine.package and not _is_installed(engine.package):
        raise TargetError(
            f"{engine.label} is not installed, and infer_backend is {engine.name}.",
            f"Run pip install {engine.package}, or remove infer_backend to use LLF's engine.",
        )
    return engine.load(ChatEngine)


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ImportError:  # the package that it is in is missing
        return False
