"""The process that holds a base model and its adapters: reads requests from a pipe, and writes events to another.

`EngineProcess` starts it as `python -m llf_core.chat.worker_process`. Lines are JSON. It receives `start`, `request`,
`cancel`, `load_adapter` and `unload_adapter`, and ends when its input ends. It writes `state`, each `event` of a
request with its `id`, and `idle` when it has had nothing to do for some time; its parent then closes its input.
"""

from __future__ import annotations

import json
import os
import queue
import re
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from llf_core.chat.request import ChatRequest, Failed, Finished, RequestError, event_json
from llf_core.chat.target import find_adapter_files, load_base, loading_config
from llf_core.models.bounded_templates import panics_as_errors
from llf_core.models.errors import ModelError
from llf_core.models.lazy_imports import prepare_imports
from llf_core.runs.foreign_code import UntrustedCodeError
from llf_core.runs.process_log import log_to
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llf_core.chat.engine import Engine
    from llf_core.chat.json_grammar import Grammar
    from llf_core.chat.request import Event
    from llf_core.config import RunConfig
    from llf_core.models.device import DevicePlan

MESSAGE_SECONDS = 0.02
"""Time for messages between two steps of the engine."""
NICENESS = 10
MEMORY_SECONDS = 2.0
"""Time between two reports of the process's memory while it works."""
PART = 1 << 16
"""Bytes of a line that are read at once."""
_REQUEST = re.compile(rb'\{"request": \{"id": (\d+),')
_TOO_LARGE = Failed(
    "out_of_memory",
    "Out of memory: the request does not fit.",
    "Shorten the conversation, or free memory of other programs.",
)


@dataclass
class Refusal:
    """Why an adapter is not loaded. It is tried again with the request after the one that got the error."""

    folder: str
    failed: Failed
    told: bool = False


class Worker:
    """Reads messages of the parent, and lets an engine work in between.

    Args:
        messages: messages of the parent; None ends the process.
        start: the parent's first message: `config`, the settings with which the base model is loaded; `idle_seconds`,
            the time without work after which the parent is told; `template`, the chat template for a tokenizer without
            one.

    Raises:
        ConfigError: the settings of the base model are invalid.
        PluginError: two installed packages declare the same plug-in.
    """

    def __init__(self, output: TextIO, messages: queue.Queue[dict[str, Any] | None], start: Mapping[str, Any]) -> None:
        self._output, self._messages = output, messages
        self._config: RunConfig = loading_config(start["config"])
        self._idle_seconds: float = start["idle_seconds"]
        self._template: str | None = start["template"]
        self._plan: DevicePlan
        self._engine: Engine
        self._refused: dict[str, Refusal] = {}
        self._told = 0.0
        self._builder = ThreadPoolExecutor(1, "llf-grammar", initializer=_yield_processor)
        self._building: set[int] = set()

    def load(self) -> None:
        """Load the base model, and report it and each step before to the parent."""
        from llf_core.chat.engine import Engine

        base = load_base(self._config, self._template, lambda what: self.tell(progress=what))
        self._plan = base.plan
        self._engine = Engine(base.model, base.tokenizer, processor=base.processor)
        weights = sum(one.nbytes for one in base.model.parameters())
        self.tell(
            phase="ready",
            progress="",
            device=self._plan.device,
            dtype=str(next(base.model.parameters()).dtype).removeprefix("torch."),
            weight_bytes=weights,
            memory_bytes=self._memory(),
            **self._engine.facts(),
        )

    def run(self) -> None:
        """Serve requests until the parent closes the pipe; call `load` before. The parent is told of idle time."""
        idle_since, told_idle, works = time.monotonic(), False, False
        while True:
            for message in self._pending(wait=not works, until=idle_since + self._idle_seconds):
                if message is None:
                    return
                self._handle(message)
                idle_since, told_idle = time.monotonic(), False
            worked, works = works, bool(self._engine.step())
            now = time.monotonic()
            if works or worked:
                idle_since = now
                if not works or now - self._told > MEMORY_SECONDS:
                    self.tell(memory_bytes=self._memory())
            elif not told_idle and now - idle_since >= self._idle_seconds:
                told_idle = True
                self._write({"idle": self._idle_seconds})

    def tell(self, **state: object) -> None:
        """Report attributes of an `EngineState` that changed to the parent."""
        self._told = time.monotonic()
        self._write({"state": state})

    def _memory(self) -> int:
        import torch

        from llf_core.models.memory import memory_in_use

        return memory_in_use(torch.device(self._plan.device))

    def _pending(self, *, wait: bool, until: float) -> Iterator[dict[str, object] | None]:
        """Messages that have arrived, for some time; waits for the first one if there is no work."""
        try:
            if wait:
                left = until - time.monotonic()
                yield self._messages.get(timeout=left if left > 0 else None)  # None: the parent has been told
            end = time.monotonic() + MESSAGE_SECONDS
            while time.monotonic() < end:
                yield self._messages.get_nowait()
        except queue.Empty:
            return

    def _handle(self, message: dict[str, Any]) -> None:
        if "request" in message:
            self._submit(dict(message["request"]))
        elif "cancel" in message:
            self._cancel(message["cancel"])
        elif "load_adapter" in message:
            self._load_adapter(**message["load_adapter"])
        elif "unload_adapter" in message:
            self._refused.pop(message["unload_adapter"], None)
            self._engine.unload_adapter(message["unload_adapter"])
        elif "built" in message:
            self._built(*message["built"])
        elif "lost" in message:
            self._event(message["lost"], _TOO_LARGE)

    def _submit(self, given: dict[str, Any]) -> None:
        number = given.pop("id")
        try:
            request = ChatRequest.read(given)
        except (RequestError, TypeError, ValueError) as error:
            self._event(number, Failed("invalid", str(error)))
            return
        except MemoryError:
            self._event(number, _TOO_LARGE)
            return
        name = request.adapter or ""
        if name in self._refused and self._refused[name].told:
            self._load_adapter(name, self._refused.pop(name).folder)
        if name in self._refused:
            self._refused[name].told = True
            self._event(number, self._refused[name].failed)
            return
        if request.json_schema is not None:
            self._building.add(number)
            self._builder.submit(self._build, number, request)
            return
        self._engine.submit(number, request, lambda event: self._event(number, event))

    def _build(self, number: int, request: ChatRequest) -> None:
        """Build the grammar of a request in a thread, while the engine goes on."""
        made: Grammar | Failed
        try:
            made = self._engine.grammar(request.json_schema or {})
        except RequestError as error:
            made = Failed("invalid", str(error))
        except Exception as error:  # noqa: BLE001 - of one request
            made = failure(error)
        self._messages.put({"built": (number, request, made)})

    def _built(self, number: int, request: ChatRequest, made: Grammar | Failed) -> None:
        if number not in self._building:
            return  # it was cancelled
        self._building.discard(number)
        if isinstance(made, Failed):
            self._event(number, made)
        else:
            self._engine.submit(number, request, lambda event: self._event(number, event), made)

    def _cancel(self, number: int) -> None:
        if number in self._building:
            self._building.discard(number)
            self._event(number, Finished("cancelled", 0, 0, 0, 0.0, 0.0))
        else:
            self._engine.cancel(number)

    def _load_adapter(self, name: str, folder: str) -> None:
        self.tell(progress=f"Loading the adapter {name}")
        try:
            path, tokenizer = find_adapter_files(folder, self._config)
            self._engine.load_adapter(name, path, tokenizer=tokenizer)
        except ModelError as error:
            removed = Path(folder).parent.name == "checkpoints" and not Path(folder).exists()
            what_to_do = "The run keeps only its last checkpoints. Use its newest weights." if removed else ""
            self._refused[name] = Refusal(folder, Failed("model_gone", str(error), what_to_do))
        except Exception as error:  # noqa: BLE001 - the requests that name it fail with the reason
            self._refused[name] = Refusal(folder, failure(error))
        self.tell(progress="", memory_bytes=self._memory())

    def _event(self, number: int, event: Event) -> None:
        self._write({"id": number, "event": event_json(event)})  # a part of a tool call has an `id` of its own

    def _write(self, message: dict[str, object]) -> None:
        self._output.write(json.dumps(message) + "\n")
        self._output.flush()


def _yield_processor() -> None:
    """Let other threads of the process run first; on Linux each has a niceness of its own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def failure(error: BaseException) -> Failed:
    """Failure of requests after an error that keeps a model or adapter from being loaded."""
    from llf_core.models.errors import first_line
    from llf_core.models.memory import is_out_of_memory

    traceback.print_exception(error)
    if isinstance(error, UserError):
        kind = "untrusted" if isinstance(error, UntrustedCodeError) else "engine"
        return Failed(kind, error.message, error.what_to_do)  # type: ignore[arg-type]  # one of the two
    if is_out_of_memory(error):
        return Failed(
            "out_of_memory",
            "The model does not fit into the free memory.",
            "Free memory of other programs, or choose a smaller or quantized model.",
        )
    return Failed("engine", f"The model cannot be loaded: {first_line(error)}")


def _read(messages: queue.Queue[dict[str, Any] | None], stream: BinaryIO) -> None:
    """Read the parent's lines in a thread, so that a cancel arrives while a token is computed.

    A request that does not fit into memory becomes a message `lost` with its id.
    """
    try:
        while part := stream.readline(PART):
            parts, start = [part], part
            try:
                while not part.endswith(b"\n") and (part := stream.readline(PART)):
                    parts.append(part)
                message = json.loads(b"".join(parts))
            except MemoryError:
                parts.clear()
                while not part.endswith(b"\n") and (part := stream.readline(PART)):
                    pass
                found = _REQUEST.match(start)
                message = {"lost": int(found[1])} if found else {}
            messages.put(message)
            del parts, message  # not held while the next line is waited for
    finally:
        messages.put(None)


def main() -> int:
    """Load the model that the first line names, and serve requests; exit code 1 if it could not be loaded."""
    output = sys.stdout
    log_to("stderr")
    messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
    threading.Thread(target=_read, args=(messages, sys.stdin.buffer), daemon=True, name="llf-requests").start()
    first = messages.get()
    if first is None:
        return 0
    prepare_imports()
    start = first["start"]
    with redirect_stdout(sys.stderr), panics_as_errors():
        worker = Worker(output, messages, start)
        try:
            worker.load()
        except Exception as error:  # noqa: BLE001 - the parent says it
            told = failure(error)
            code = [one.json() for one in error.code] if isinstance(error, UntrustedCodeError) else []
            reason = f"{told.message} {told.what_to_do}".strip()
            worker.tell(phase="failed", reason=reason, progress="", code=code)
            return 1
        worker.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
