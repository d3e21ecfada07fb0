"""A service whose engine says what a test tells it to: faults of clients and engines at moments that a test chooses."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llf_core.chat.chat_engine import EngineState
from llf_core.chat.request import Embedded, Failed, Finished, Piece, Started
from llf_core.chat.service import ChatService, Ticket
from llf_core.chat.target import Target

if TYPE_CHECKING:
    from collections.abc import Callable

    from llf_core.chat.request import ChatRequest, Event


@dataclass
class Asked(Ticket):
    """A request that the service has got."""

    id: int = 0
    request: ChatRequest | None = None
    on_event: Callable[[Event], object] = lambda _: None
    cancelled: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        self.cancelled.set()

    def say(self, *events: Event) -> None:
        for event in events:
            self.on_event(event)


class ScriptedService(ChatService):
    """Answers with `answer`, in a thread, as the real one does."""

    def __init__(self, answer: Callable[[Asked], object] | None = None) -> None:
        super().__init__()
        self.asked: list[Asked] = []
        self.answer = answer or hello
        self.sees_images = False
        for name in ("base", "tuned"):
            self.targets[name] = Target(name, "model", "model_name_or_path: owner/base\n", model="owner/base")

    def state(self, name: str) -> EngineState:
        return EngineState("ready", context=1024, sees_images=self.sees_images)

    def submit(self, name: str, request: ChatRequest, on_event: Callable[[Event], object]) -> Ticket:
        asked = Asked(request=request, on_event=on_event)
        self.asked.append(asked)
        threading.Thread(target=self.answer, args=(asked,), daemon=True).start()
        return asked


def hello(asked: Asked) -> None:
    """A short reply, or an embedding."""
    if asked.request.embed:
        asked.say(Started(3, 1), Embedded((0.6, 0.8)), finished(tokens=0))
        return
    asked.say(Started(3, 1), Piece("Hel"), Piece("lo"), finished())


def until_cancelled(asked: Asked) -> None:
    """Begins, and ends when it is cancelled."""
    asked.say(Started(3, 0), Piece("begun"))
    assert asked.cancelled.wait(200)
    asked.say(finished("cancelled"))


def fails(kind: str, message: str) -> Callable[[Asked], None]:
    """Fails at once."""
    return lambda asked: asked.say(Failed(kind, message))


def finished(reason: str = "stop", tokens: int = 2) -> Finished:
    return Finished(reason, 3, tokens, 1, 0.1, 0.2)
