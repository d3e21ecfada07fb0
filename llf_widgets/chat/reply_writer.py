"""Replies of models while they are written: requested, kept, and sent to the page."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from llf_core.chat.request import Failed
from llf_widgets.chat.replies import Writing
from llf_widgets.chat.settings import request_of
from llf_widgets.chat.turns import sent_messages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from llf_core.chat.conversation import ChatMessage, Conversation
    from llf_core.chat.request import Event
    from llf_core.chat.service import ChatService

SAVE_SECONDS = 5.0
"""Interval at which the text of a reply that is being written is saved."""
SAMPLING = ("temperature", "top_p", "max_tokens", "seed")


class ReplyWriter:
    """Requests replies of models, keeps what they generate, and sends the page what is new.

    Args:
        lock: held while a reply changes; the caller of a method may hold it.
        send: sends updates of replies to the page, see `Writing.update`.
        on_end: called with a reply whose last event has come, while the lock is held; it calls `end`.
        on_problem: called with a sentence if a reply cannot be saved.

    Attributes:
        writing: the replies that are being written, by id.
        tokens: the tokens of replies that have ended, by id; see `Writing.tokens`.
    """

    def __init__(
        self,
        service: ChatService,
        lock: threading.RLock,
        *,
        send: Callable[[list[dict[str, Any]]], object],
        on_end: Callable[[Writing], object],
        on_problem: Callable[[str], object],
    ) -> None:
        self.writing: dict[str, Writing] = {}
        self.tokens: dict[str, list[Any]] = {}
        self._service, self._lock = service, lock
        self._send, self._on_end, self._on_problem = send, on_end, on_problem
        self._sender = UpdateSender(self._send_updates)

    def is_busy(self, model: str) -> bool:
        """Whether a model is writing a reply."""
        return any(one.model == model for one in self.writing.values())

    def add(
        self,
        conversation: Conversation,
        questions: Mapping[str, ChatMessage],
        settings: Mapping[str, object],
        left_out: int = 0,
    ) -> list[tuple[Writing, list[ChatMessage]]]:
        """Add an empty reply of each model to a conversation; returned with the messages to send, for `submit`."""
        sampling = {name: settings[name] for name in SAMPLING if settings[name]}
        begun = []
        for model, question in questions.items():
            reply = conversation.add("assistant", parent=question.id, target=model, sampling=sampling)
            conversation.choose(reply.id, model)
            writing = Writing(reply.id, model, left_out=left_out)
            begun.append((writing, sent_messages(conversation.path_to(question.id), left_out)))
        self.writing |= {writing.id: writing for writing, _ in begun}  # none, if one of them cannot be added
        return begun

    def submit(
        self,
        conversation: Conversation,
        begun: Iterable[tuple[Writing, list[ChatMessage]]],
        settings: Mapping[str, Any],
    ) -> None:
        """Send the requests for replies that `add` has added; the reply to an invalid request ends with the reason."""
        tools = conversation.settings.get("tools")
        for writing, history in begun:
            on_event = partial(self._on_event, conversation, writing)
            try:
                request = request_of(
                    settings,
                    conversation.request_messages(history),
                    tools=tuple(tools) if isinstance(tools, list) else (),  # anybody may have written the file
                )
            except ValueError as error:  # `RequestError`s are among them
                on_event(Failed("invalid", str(error)))
                continue
            writing.ticket = self._service.submit(writing.model, request, on_event)

    def stop(self, reply: str | None = None) -> None:
        """Stop the reply with an id, or all, at the next token; the text so far stays."""
        with self._lock:
            tickets = [one.ticket for one in self.writing.values() if reply in {None, one.id}]
        for ticket in tickets:
            if ticket is not None:
                ticket.cancel()

    def stop_model(self, model: str) -> None:
        """Stop the replies of a model."""
        for writing in [one for one in self.writing.values() if one.model == model]:
            self.stop(writing.id)

    def end(self, conversation: Conversation, writing: Writing) -> None:
        """Save a reply that has ended (with the next message if that fails), and keep its tokens."""
        if not self._save(conversation, writing):
            conversation.change_unsaved(writing.id, **writing.fields())
        self.writing.pop(writing.id, None)
        if writing.tokens:
            self.tokens[writing.id] = writing.tokens

    def _on_event(self, conversation: Conversation, writing: Writing, event: Event) -> None:
        with self._lock:
            if writing.take(event):
                self._on_end(writing)
                return
            if time.monotonic() - writing.saved_at > SAVE_SECONDS:
                writing.saved_at = time.monotonic()
                self._save(conversation, writing)
        self._sender.notify()

    def _save(self, conversation: Conversation, writing: Writing) -> bool:
        try:
            conversation.change(writing.id, **writing.fields())
        except (OSError, ValueError) as error:
            self._on_problem(f"The conversation could not be saved. {error}")
            return False
        return True

    def _send_updates(self) -> None:
        with self._lock:
            updates = [update for one in self.writing.values() if (update := one.update()) is not None]
            if updates:
                self._send(updates)


INTERVAL = 0.05
"""Seconds between two messages to the page."""


class UpdateSender:
    """Calls `send`, which must not fail, soon after `notify`, at most once in `INTERVAL`, in a thread of its own."""

    def __init__(self, send: Callable[[], None]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._pending = self._running = False

    def notify(self) -> None:
        """Report that something is new; may be called often, and by any thread."""
        with self._lock:
            self._pending = True
            if self._running:
                return
            self._running = True
        threading.Thread(target=self._run, daemon=True, name="llf-chat-updates").start()

    def _run(self) -> None:
        while True:
            time.sleep(INTERVAL)
            with self._lock:
                if not self._pending:
                    self._running = False
                    return
                self._pending = False
            self._send()
