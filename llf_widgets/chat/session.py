"""What a chat does for code and page alike: it has models, sends them questions, and adds replies to a conversation."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import traitlets

from llf_core.chat.conversation import new_conversation
from llf_core.chat.picture import picture_part, question_content
from llf_core.user_error import UserError
from llf_widgets.chat.models import MAX_MODELS
from llf_widgets.chat.reply_writer import ReplyWriter
from llf_widgets.chat.settings import DEFAULTS, MAX_ROUNDS, save_settings
from llf_widgets.chat.turns import Turn, call_rounds, kept_rows, turn_json, turns_of
from llf_widgets.front_end import SavedView

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from PIL.Image import Image

    from llf_core.chat.chat_engine import EngineState
    from llf_core.chat.conversation import ChatMessage, Conversation
    from llf_core.launch import Run
    from llf_core.runs import RunFolder
    from llf_widgets.chat.models import ViewModels
    from llf_widgets.chat.replies import Writing
    from llf_widgets.chat.settings import CellTools

    Picture = str | os.PathLike[str] | bytes | Image

WAIT_SECONDS = 0.05
"""Interval of polling for replies."""
CLOSED = "The chat is closed. Run its cell again."


class ChatSession(SavedView):
    """One conversation with several models. `Chat` adds the messages of its page.

    Args:
        models: the models, which were acquired; the chat releases them when it is closed.
        settings: system prompt and sampling, as texts of fields; see `llf_widgets.chat.settings`.
        tools: functions of the cell that the models may call.
    """

    _models: traitlets.List[dict[str, Any]] = traitlets.List(help="the models and their engines").tag(sync=True)
    _turns: traitlets.List[dict[str, Any]] = traitlets.List(help="questions and replies").tag(sync=True)
    _settings = traitlets.Dict(DEFAULTS, help="system prompt and sampling, as texts of fields").tag(sync=True)
    _errors = traitlets.Dict(help="a sentence for each invalid field").tag(sync=True)
    _kept: traitlets.List[dict[str, str]] = traitlets.List(help="data sets of kept replies").tag(sync=True)
    _note = traitlets.Unicode("").tag(sync=True)
    _code: traitlets.List[dict[str, Any]] = traitlets.List(help="what would run, and was not allowed").tag(sync=True)

    _end_watch = _end_work = staticmethod(lambda: None)  # also of a view that could not be made

    def __init__(
        self, models: ViewModels, conversation: Conversation, settings: Mapping[str, Any], tools: CellTools
    ) -> None:
        self._lock = threading.RLock()
        self._calling: set[str] = set()  # replies whose tools are being called
        self._closed = False
        self._view_models, self._conversation, self._tools = models, conversation, tools
        self._writer = ReplyWriter(
            models.shared.service,
            self._lock,
            send=lambda updates: self.send({"type": "updates", "updates": updates}),
            on_end=self._end,
            on_problem=self._say,
        )
        self._end_work = self._stop_and_release
        super().__init__()
        self._settings = dict(settings)
        self._end_watch = models.shared.service.watch(self._on_state)
        self._show_models()
        self._show_turns()
        self._show_kept()

    @property
    def models(self) -> list[str]:
        """Names of the models, in the order of their columns; empty once closed."""
        return list(self._view_models.targets)

    @property
    def conversation(self) -> Conversation:
        """The conversation that is shown."""
        return self._conversation

    def ask(self, text: str, pictures: Picture | Iterable[Picture] = ()) -> None:
        """Ask all models a question from code, as *Send* does in the page; the replies appear in the view.

        Args:
            text: the question; it may be empty if there are pictures.
            pictures: for vision models: paths, contents of files, data URLs, or images of Pillow; a single one needs no
                list. PNG, JPEG, WebP or GIF of at most 6 MB together.

        Raises:
            ValueError: there is neither text nor a picture, replies are still being written, or the chat is closed.
            TypeError: `text` is not a string.
        """
        if not isinstance(text, str):
            raise TypeError(f"The question is {str(text)[:80]}. Expected a text.")
        given = pictures if isinstance(pictures, Iterable) and not isinstance(pictures, str | bytes) else [pictures]
        parts = [picture_part(one) for one in given]
        if not text.strip() and not parts:
            raise ValueError("The question is empty.")
        with self._lock:
            if self._closed:
                raise ValueError(CLOSED)
            if self._writing:
                raise ValueError("Replies are still being written. Wait for them, or stop them.")
            self._view_models.check_sight(parts)
            self._keep_settings()
            questions = self._conversation.ask(question_content(text, parts), self.models)
            self._begin({name: questions[name] for name in self.models})

    def wait(self) -> dict[str, ChatMessage]:
        """Wait until all replies are written, including those after tool calls.

        An interrupt ends the waiting only, not the replies. Closing the view stops them and ends the wait.

        Returns:
            The last reply of each model to the last question, by the model's name, as far as it is written; models
            without one are left out. Empty before the first question, and of a view that was closed before the call.
        """
        models = self.models  # a closed view has none
        while self._is_answering() and not self._closed:
            time.sleep(WAIT_SECONDS)
        with self._lock:  # held until a reply that has ended is shown
            turns = turns_of(self._conversation, models)
        found = {name: turns[-1].reply(name) for name in turns[-1].replies} if turns else {}
        return {name: reply for name, reply in found.items() if reply is not None}

    def stop(self, reply: str | None = None) -> None:
        """Stop a reply with an id, or all, at the next token; the text so far stays.

        A function of the cell that a model has called runs on, and the model replies to its result.
        """
        self._writer.stop(reply)

    def new_chat(self) -> None:
        """Begin a new conversation, unless replies are being written. The old one stays in its file."""
        with self._lock:
            if not self._writing:
                self._conversation = new_conversation(self._view_models.home)
                self._show_turns()

    def add(self, target: str | Path | Run | RunFolder) -> str:
        """Add a model, which answers from the next question on, and return its name.

        Raises:
            ValueError: there are four models already, or the chat is closed.
        """
        with self._lock:
            if self._closed:
                raise ValueError(CLOSED)
            if len(self._view_models.targets) >= MAX_MODELS:
                raise ValueError(f"There are {MAX_MODELS} models already. Remove one first.")
            name = self._view_models.acquire(target)
            self._show_models()
            self._show_turns()
        return name

    def remove(self, name: str) -> None:
        """Remove a model from the view, unless it is the only one; its replies stay in the file.

        Replies that it is writing are stopped. If no other chat uses the model, its memory is freed; the call waits up
        to 10 seconds for the end of its process.
        """
        with self._lock:
            if name not in self._view_models.targets or len(self._view_models.targets) == 1:
                return
            del self._view_models.targets[name], self._view_models.given[name]
        try:
            with self._lock:
                self._writer.stop_model(name)
                self._show_models()
                self._show_turns()
                self._show_kept()
        finally:
            self._view_models.shared.release(name)

    def use_newest(self, name: str) -> None:
        """Answer with the newest weights of a run from the next question on.

        Raises:
            ValueError: there is no such model, or it is writing a reply.
        """
        with self._lock:
            self._view_models.run_target(name)
            if self._writer.is_busy(name):
                raise ValueError(f"{name} is writing a reply. Wait for it, or stop it.")
            said = self._view_models.renew(name)
            self._show_models()
            self._show_turns()
            self._note = said

    def close(self) -> None:
        """Stop all replies and close the view; models that no other chat uses are unloaded.

        The call waits up to 10 seconds for the end of each of their processes.
        """
        self._closed = True
        self._end_watch()
        self._end_work()
        super().close()

    # -- what is shown -----------------------------------------------------------------------------------
    def _on_state(self, name: str, _state: EngineState) -> None:
        if name in self._view_models.targets:
            with self._lock:
                self._show_models()

    def _show_models(self) -> None:
        self._models, self._code = self._view_models.shown()

    def _keep_settings(self) -> None:
        save_settings(self._conversation, self._settings, self.models, self._tools.schemas)

    def _show_turns(self) -> None:
        found = turns_of(self._conversation, self.models)
        last = [reply for turn in found for model in turn.replies if (reply := turn.reply(model)) is not None]
        paused = {reply.id: rounds for reply in last if (rounds := self._paused_after(reply))}
        self._turns = [
            turn_json(self._conversation, turn, self._writing, self._writer.tokens, paused) for turn in found
        ]

    def _show_kept(self) -> None:
        self._kept = kept_rows(self._view_models.home, next(iter(self._view_models.targets.values())))

    def _turn(self, name: str) -> Turn | None:
        self._conversation.refresh()
        return next((one for one in turns_of(self._conversation, self.models) if one.id == name), None)

    # -- replies -----------------------------------------------------------------------------------------
    def _stop_and_release(self) -> None:
        self._writer.stop()
        self._view_models.release()

    @property
    def _writing(self) -> dict[str, Writing]:
        return self._writer.writing

    def _is_answering(self) -> bool:
        """Whether a reply is written or its tools are called; the lock is held where one follows the other."""
        with self._lock:
            return bool(self._writing or self._calling)

    def _say(self, sentence: str) -> None:
        self._note = sentence

    def _begin(self, questions: dict[str, ChatMessage], left_out: int = 0) -> None:
        begun = self._writer.add(self._conversation, questions, self._settings, left_out)
        self._show_turns()
        self._note = ""
        self._writer.submit(self._conversation, begun, self._settings)

    def _end(self, writing: Writing) -> None:
        self._writer.end(self._conversation, writing)
        reply = self._conversation.messages.get(writing.id)
        if reply is not None and self._can_call(reply) and not self._paused_after(reply):
            self._begin_calls(writing.id, writing.calls)
            return
        self._show_turns()
        if not self._writing:
            self._update_outputs()

    def _can_call(self, reply: ChatMessage) -> bool:
        calls = reply.finish_reason == "tool_calls" and reply.id not in self._calling
        return calls and self._tools.can_answer(reply.tool_calls)

    def _paused_after(self, reply: ChatMessage) -> int:
        """Number of rounds of calls before a reply whose calls wait until the user lets them go on; else 0."""
        if not self._can_call(reply):
            return 0
        rounds = call_rounds(self._conversation.path_to(reply.id)) - 1
        return 0 if rounds % MAX_ROUNDS else rounds

    def _continue(self, reply: ChatMessage) -> None:
        if self._paused_after(reply):
            self._begin_calls(reply.id, reply.tool_calls)

    def _begin_calls(self, reply: str, calls: Sequence[Mapping[str, Any]]) -> None:
        self._calling.add(reply)
        self._show_turns()
        threading.Thread(target=self._call_tools, args=(reply, calls), daemon=True, name="llf-chat-tools").start()

    def _call_tools(self, reply: str, calls: Sequence[Mapping[str, Any]]) -> None:
        try:
            self._answer_calls(reply, self._tools.results(calls))
        except (UserError, ValueError, OSError) as error:
            self._note = str(error)
        finally:
            self._calling.discard(reply)
        if not self._writing:  # else the end of the next reply does it
            self._update_outputs()

    def _answer_calls(self, reply: str, results: dict[str, str]) -> None:
        """Ask a model again with the results of its calls, unless a new conversation was begun meanwhile."""
        with self._lock:
            if reply not in self._conversation.messages:
                return
            message = self._conversation.path_to(reply)[-1]
            model, last = message.target, message
            if model not in self._view_models.targets or self._writer.is_busy(model):
                return
            for call in message.tool_calls:
                name = str(call.get("id", ""))
                text = results.get(name, "")
                last = self._conversation.add("tool", text, parent=last.id, tool_call_id=name, target=model)
            if last is not message:
                self._begin({model: last})
