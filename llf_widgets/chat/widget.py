"""`llf.Chat(*targets)`: one question to models side by side."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import traitlets

from llf_core.chat.conversation import new_conversation
from llf_core.chat.kept_examples import KINDS
from llf_core.chat.picture import MAX_BYTES, PictureError, picture_part, question_content
from llf_core.runs import Checkpoints, open_run
from llf_core.user_error import UserError
from llf_widgets.chat.keeping import keep, kept_rows, undo
from llf_widgets.chat.live_run import request_checkpoint, wait_for_checkpoint
from llf_widgets.chat.models import shared_models
from llf_widgets.chat.pictures import AddedPictures, pictures_of, shown_url
from llf_widgets.chat.reply_writer import ReplyWriter
from llf_widgets.chat.saved_chat import conversation_of, save_settings, saved_settings
from llf_widgets.chat.settings import DEFAULTS, changed
from llf_widgets.chat.summary import summary_html, summary_text
from llf_widgets.chat.tools import call_tool, called_names, tool_schema
from llf_widgets.chat.turn_changes import choose_question, choose_reply, edit_question, shortened
from llf_widgets.chat.turns import Turn, turn_json, turns_of
from llf_widgets.chat.view_models import ViewModels
from llf_widgets.foreign_code import allow_code
from llf_widgets.saved_view import SavedView
from llf_widgets.view_files import script, stylesheet
from llf_widgets.view_mime_type import VIEW_MIME_TYPE

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from PIL.Image import Image

    from llf_core.chat.chat_engine import EngineState
    from llf_core.chat.chat_message import ChatMessage
    from llf_core.chat.conversation import Conversation
    from llf_core.launch import Run
    from llf_core.runs import RunFolder
    from llf_widgets.chat.replies import Writing

MAX_MODELS = 4
CHECKPOINT_SECONDS = 600.0
"""Maximum time to wait for a checkpoint that was requested."""
WAIT_SECONDS = 0.05
"""Time between two looks at replies that are waited for."""


class Chat(SavedView):
    """A chat with one to four models: each question goes to all of them, and their replies stand side by side.

    The models run in processes of their own, which all chats of the kernel share: one for each base model, with the
    adapters of its runs. A process starts with the first question and ends after 10 minutes without one. The
    conversation is kept in a file below `LLF_HOME`, so that it comes back when the cell is run again, also after a
    restart of the kernel.

    Args:
        targets: what to chat with: a run, its id, `RUN@STEP`, `RUN@latest`, `RUN@base`, a folder of a model or adapter,
            or a hub id.
        conversation: id of the conversation; None for the last one of these models in this notebook.
        system: system prompt; None for that of the conversation.
        tools: functions that the models may call; the result goes back to the model. Their annotations and docstrings
            say what they do.
        trust: whether Python code of the models may run that has not been allowed yet.
        home: `LLF_HOME`; None for the environment's.

    Attributes:
        models: names of the models.

    Raises:
        ValueError: there is no target, there are too many, or a tool has a parameter that cannot be passed by name.
        TargetError: nothing has this name, or it generates no text.
        ConversationError: there is no such conversation.
        ConfigError: the config of the run is no longer valid.
        UnreadableError: a file is not a regular file, or the system denies access.
        TypeError: a target is of another type, or a tool cannot be called.
        AttributeError: a tool has no name, as a `functools.partial`.
        HomeError: the folder `LLF_HOME` cannot be located, see `llf_core.runs.home`.
        PluginError: two installed packages declare the same name or key.
        BrokenRunError: the status of a run cannot be read.
        OSError: a file cannot be read.

    Example:
        >>> llf.Chat("HuggingFaceTB/SmolLM2-135M-Instruct", run)   # the base beside what was trained
    """

    _esm = script("chat")
    _css = stylesheet("chat")
    _models: traitlets.List[dict[str, Any]] = traitlets.List(help="the models and their engines").tag(sync=True)
    _turns: traitlets.List[dict[str, Any]] = traitlets.List(help="questions and replies").tag(sync=True)
    _settings = traitlets.Dict(DEFAULTS, help="system prompt and sampling, as texts of fields").tag(sync=True)
    _errors = traitlets.Dict(help="a sentence for each invalid field").tag(sync=True)
    _kept: traitlets.List[dict[str, str]] = traitlets.List(help="data sets of kept replies").tag(sync=True)
    _note = traitlets.Unicode("").tag(sync=True)
    _picture_bytes = traitlets.Int(MAX_BYTES, help="maximum size of a picture").tag(sync=True)
    _code: traitlets.List[dict[str, Any]] = traitlets.List(help="what would run, and was not allowed").tag(sync=True)

    _end_watch = _end_work = staticmethod(lambda: None)  # also of a view that could not be made

    def __init__(
        self,
        *targets: str | Path | Run | RunFolder,
        conversation: str | None = None,
        system: str | None = None,
        tools: Sequence[Callable[..., Any]] = (),
        trust: bool = False,
        home: Path | str | None = None,
    ) -> None:
        self._lock = threading.RLock()
        self._calling: set[str] = set()  # replies whose tools are being called
        self._closed = False
        if not 1 <= len(targets) <= MAX_MODELS:
            raise ValueError(f"There are {len(targets)} models. Expected 1 to {MAX_MODELS}.")
        self._home = None if home is None else Path(home)
        self._shared = shared_models(self._home, trust=trust)
        self._functions = {one.__name__: one for one in tools}
        self._tools = [tool_schema(one) for one in tools]
        self._page_updates_outputs = False
        self._added = AddedPictures()
        self._view_models = ViewModels(self._shared, self._home)
        self._writer = ReplyWriter(
            self._shared.service,
            self._lock,
            send=lambda updates: self.send({"type": "updates", "updates": updates}),
            on_end=self._end,
            on_problem=self._say,
        )
        self._end_work = self._stop_and_release
        try:
            for target in targets:
                self._view_models.acquire(target)
            self._conversation = conversation_of(conversation, self.models, self._home)
        except BaseException:
            self._view_models.release()
            raise
        super().__init__()
        self._settings = saved_settings(self._conversation) | ({} if system is None else {"system": system})
        self._end_watch = self._shared.service.watch(self._on_state)
        self._show_models()
        self._show_turns()
        self._show_kept()
        self.on_msg(self._receive)

    @property
    def models(self) -> list[str]:
        """Names of the models, in the order of their columns, by which other methods name them."""
        return list(self._view_models.targets)

    @property
    def conversation(self) -> Conversation:
        """The conversation that is shown, for cells that export it or read its messages."""
        return self._conversation

    def ask(self, text: str, pictures: Sequence[str | os.PathLike[str] | bytes | Image] = ()) -> None:
        """Ask all models a question from code, as *Send* does in the page; the replies appear in the view.

        Args:
            text: the question; it may be empty if there are pictures.
            pictures: for models that see: paths, contents of files, data URLs, or images of Pillow; a single text or
                `bytes` counts as one. PNG, JPEG, WebP or GIF of at most 6 MB together.

        Raises:
            ValueError: there is neither text nor a picture, or replies are still being written.
            PictureError: a picture cannot be read or is too large, or a model reads no pictures.
            FileNotFoundError: there is no such file.
            TargetError: another view has closed the service.
            ConversationError: the question is too large, or the file was replaced or deleted meanwhile.
            UnreadableError: the file of the conversation is not a regular file, or the system denies access.
            OSError: the disk is full, or the file cannot be written.
        """
        given = [pictures] if isinstance(pictures, str | bytes) else pictures
        parts = [picture_part(one) for one in given]
        if not text.strip() and not parts:
            raise ValueError("The question is empty.")
        with self._lock:
            if self._writing:
                raise ValueError("Replies are still being written. Wait for them, or stop them.")
            self._view_models.check_sight(parts)
            self._keep_settings()
            questions = self._conversation.ask(question_content(text, parts), self.models)
            self._begin({name: questions[name] for name in self.models})

    def wait(self) -> dict[str, ChatMessage]:
        """Wait until all replies are written, those after calls of tools too, for cells that go on with them.

        An interrupt ends the waiting only, not the replies. Closing the view stops them and ends the wait.

        Returns:
            The last reply of each model to the last question, by the model's name, as far as it is written; models
            without one are left out.
        """
        models = self.models  # a closed view has none
        while (self._writing or self._calling) and not self._closed:
            time.sleep(WAIT_SECONDS)
        turns = turns_of(self._conversation, models)
        found = {name: turns[-1].reply(name) for name in turns[-1].replies} if turns else {}
        return {name: reply for name, reply in found.items() if reply is not None}

    def stop(self, reply: str | None = None) -> None:
        """Stop replies at their next token, as the button does; their text so far stays.

        Args:
            reply: id of the reply; None for all.
        """
        self._writer.stop(reply)

    def new_chat(self) -> None:
        """Begin a new conversation, which models answer without the old one, unless replies are being written.

        The old one stays in its file.

        Raises:
            ConversationError: the file of the conversation was replaced.
            HomeError: the folder `LLF_HOME` cannot be located, see `llf_core.runs.home`.
            UnreadableError: the system denies access.
            OSError: too many files are open.
        """
        with self._lock:
            if not self._writing:
                self._conversation = new_conversation(self._home)
                self._show_turns()

    def add(self, target: str | Path | Run | RunFolder) -> str:
        """Add a model to compare with the others; it answers from the next question on.

        Args:
            target: see the class.

        Returns:
            Its name.

        Raises:
            ValueError: there are too many models.
            ConversationError: the file of the conversation was replaced.
            TargetError: nothing has this name, or it generates no text.
            ConfigError: the config of the run is no longer valid.
            UnreadableError: the `adapter_config.json` is too large, or the system denies access.
            TypeError: the target is of another type.
            HomeError: the folder `LLF_HOME` cannot be located, see `llf_core.runs.home`.
            PluginError: two installed packages declare the same name or key.
            BrokenRunError: the status of a run cannot be read.
            OSError: a file cannot be read.
        """
        with self._lock:
            if len(self._view_models.targets) >= MAX_MODELS:
                raise ValueError(f"There are {MAX_MODELS} models already. Remove one first.")
            name = self._view_models.acquire(target)
            self._show_models()
            self._show_turns()
        return name

    def remove(self, name: str) -> None:
        """Remove a model from the view, to make room for another one; its replies stay in the file.

        Replies that it is writing are stopped. If no other chat uses the model, its memory is freed; the call waits up
        to 10 seconds for the end of its process.

        Args:
            name: its name; one that is unknown, or the only one, is left as it is.

        Raises:
            ConversationError: the file of the conversation was replaced.
            TargetError: another view has closed the service.
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
        finally:
            self._shared.release(name)

    def use_newest(self, name: str) -> None:
        """Answer with the newest weights of a run from the next question on, to see what it has learned meanwhile.

        Args:
            name: name of a model that stands for a run.

        Raises:
            ValueError: there is no such model, or it is writing a reply.
            ConversationError: the file of the conversation was replaced.
            TargetError: the run has no weights any more.
            ConfigError: the config of the run is no longer valid.
            UnreadableError: the `adapter_config.json` is too large, or the system denies access.
            HomeError: the folder `LLF_HOME` cannot be located, see `llf_core.runs.home`.
            PluginError: two installed packages declare the same name or key.
            BrokenRunError: the status of the run cannot be read.
            OSError: a file cannot be read.
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
        """Stop all replies and close the view; models that no other chat uses give their memory back.

        The call waits up to 10 seconds for the end of each of their processes.
        """
        self._closed = True
        self._end_watch()
        self._end_work()
        super().close()

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The widget; for hosts without widgets and saved notebooks the conversation as text."""
        data, metadata = self.widget_mimebundle(**options)
        call = f"llf.Chat({', '.join(map(repr, self._view_models.given.values()))})"
        texts = {"text/plain": summary_text(call, self._turns), "text/html": summary_html(call, self._turns)}
        return data | texts | {VIEW_MIME_TYPE: {"view": "chat"}}, metadata

    # -- models ------------------------------------------------------------------------------------------
    def _use_next_checkpoint(self, name: str) -> None:
        """Request a checkpoint of a live run, and answer with it once it is there."""
        target = self._view_models.run_target(name)
        steps = Checkpoints(open_run(target.run_id, self._home)).list()
        folder = request_checkpoint(target, self._home)
        self._note = f"Checkpoint of {name} requested. The chat uses it as soon as it is saved."

        def follow() -> None:
            try:
                if wait_for_checkpoint(folder, steps[-1] if steps else -1, CHECKPOINT_SECONDS):
                    self.use_newest(name)
                else:
                    self._note = f"{name} has saved no further checkpoint."
            except (ValueError, OSError, RuntimeError) as error:
                self._note = str(error)

        threading.Thread(target=follow, daemon=True, name="llf-chat-checkpoint").start()

    def _on_state(self, name: str, _state: EngineState) -> None:
        if name in self._view_models.targets:
            with self._lock:
                self._show_models()

    def _show_models(self) -> None:
        self._models, self._code = self._view_models.shown()

    def _allow(self) -> None:
        """Allow the displayed code, and start the engines."""
        if error := allow_code(self._code):
            self._note = error
            return
        self._view_models.start()

    def _free_memory(self) -> None:
        """End the engines; the next question starts them again."""
        self.stop()
        self._view_models.stop()

    # -- the conversation --------------------------------------------------------------------------------
    def _keep_settings(self) -> None:
        save_settings(self._conversation, self._settings, self.models, self._tools)

    def _show_turns(self) -> None:
        found = turns_of(self._conversation, self.models)
        self._turns = [turn_json(self._conversation, turn, self._writing, self._writer.tokens) for turn in found]

    def _show_kept(self) -> None:
        self._kept = kept_rows(self._home, next(iter(self._view_models.targets.values())))

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

    def _say(self, sentence: str) -> None:
        self._note = sentence

    def _begin(self, questions: dict[str, ChatMessage], left_out: int = 0) -> None:
        """Ask models for replies.

        Args:
            questions: the question to each model.
            left_out: number of the oldest turns that are not sent.
        """
        begun = self._writer.add(self._conversation, questions, self._settings, left_out)
        self._show_turns()
        self._note = ""
        self._writer.submit(self._conversation, begun, self._settings)

    def _end(self, writing: Writing) -> None:
        calls = (
            writing.calls and writing.reason == "tool_calls" and self._functions.keys() >= called_names(writing.calls)
        )
        if calls:
            self._calling.add(writing.id)
        self._writer.end(self._conversation, writing)
        self._show_turns()
        if calls:
            threading.Thread(target=self._call_tools, args=(writing,), daemon=True, name="llf-chat-tools").start()
        elif not self._writing:
            self._update_outputs()

    def _call_tools(self, writing: Writing) -> None:
        """Call functions of the cell as a model asked, and ask it again with their results."""
        results = {}
        try:
            for call in writing.calls:
                function = call["function"]
                results[call["id"]] = call_tool(self._functions, function["name"], function["arguments"])
            self._answer_calls(writing.id, results)
        except (UserError, ValueError, OSError) as error:
            self._note = str(error)
        finally:
            self._calling.discard(writing.id)

    def _answer_calls(self, reply: str, results: dict[str, str]) -> None:
        """Ask a model again with the results of its calls."""
        with self._lock:
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

    def _update_outputs(self) -> None:
        """Rewrite the outputs, if their page keeps the view while it does so."""
        if self._page_updates_outputs:
            super()._update_outputs()

    # -- the page ----------------------------------------------------------------------------------------
    def _receive(self, _widget: object, content: Any, _buffers: object) -> None:
        handlers: dict[str, Callable[[dict[str, Any]], object]] = {
            "open": self._page_opened,
            "start": lambda _: self._view_models.start(),
            "send": self._take_question,
            "add_picture": self._add_picture,
            "remove_picture": lambda given: self._added.discard([str(given["key"])]),
            "show_picture": self._show_picture,
            "stop": lambda given: self.stop(given.get("reply")),
            "again": lambda given: self._again(str(given["turn"]), str(given["model"])),
            "edit": lambda given: self._edit(str(given["turn"]), str(given["text"]), given.get("pictures")),
            "version": lambda given: self._go_to_version(str(given["turn"]), int(given["step"])),
            "reply_version": lambda given: self._go_to_reply(
                str(given["turn"]), str(given["model"]), int(given["step"])
            ),
            "fix": lambda given: self._fix(str(given["turn"]), str(given["model"]), str(given["fix"])),
            "settings": lambda given: self._change_settings(dict(given["changes"])),
            "new": lambda _: self.new_chat(),
            "add": lambda given: self.add(str(given["target"])),
            "newest": lambda given: self.use_newest(str(given["model"])),
            "checkpoint": lambda given: self._use_next_checkpoint(str(given["model"])),
            "results": lambda given: self._answer_calls(str(given["reply"]), dict(given["results"])),
            "keep": self._keep,
            "undo": self._undo,
            "remove": lambda given: self.remove(str(given["model"])),
            "allow": lambda _: self._allow(),
            "free": lambda _: self._free_memory(),
        }
        handler = handlers.get(str(content.get("type"))) if isinstance(content, dict) else None
        if handler is None:
            return
        try:
            handler(content)
        except (UserError, ValueError, OSError) as error:
            self._note = str(error)

    def _page_opened(self, given: dict[str, Any]) -> None:
        with self._lock:
            self._page_updates_outputs = bool(given.get("keeps_view"))
            self._conversation.refresh()
            self._show_turns()
            self.send_state("_turns")

    def _take_question(self, given: dict[str, Any]) -> None:
        """Ask the question of a page, which gets it back if it cannot be asked."""
        keys = [str(one) for one in given.get("pictures", ())]
        try:
            self.ask(str(given["text"]), self._added.urls(keys))
        except Exception:
            self.send({"type": "refused", "request": given.get("request")})
            raise
        self._added.discard(keys)

    def _add_picture(self, given: dict[str, Any]) -> None:
        """Check a picture that was added in a page."""
        key, problem = str(given["key"]), ""
        try:
            self._added.add(key, str(given["name"])[:200], given["picture"], [str(one) for one in given["beside"]])
        except PictureError as error:
            problem = str(error)
        self.send({"type": "picture_checked", "key": key, "problem": problem})

    def _show_picture(self, given: dict[str, Any]) -> None:
        """Send the page a picture of the conversation."""
        key = str(given["key"])
        self.send({"type": "picture", "key": key, "url": shown_url(self._conversation, key)})

    def _again(self, turn: str, model: str, *, left_out: int = 0) -> None:
        with self._lock:
            found = self._turn(turn)
            asked = found is not None and model in found.questions and model in self._view_models.targets
            if found is not None and asked and not self._writer.is_busy(model):
                self._keep_settings()
                self._begin({model: found.questions[model]}, left_out)

    def _edit(self, turn: str, text: str, kept: list[object] | None = None) -> None:
        """Ask a question in other words, as a new version of it.

        Args:
            turn: id of the question.
            text: its new text.
            kept: keys of the pictures that it keeps; None for all.
        """
        with self._lock:
            found = self._turn(turn)
            if found is None or self._writing:
                return
            pictures = pictures_of(found.first, kept)
            if not text.strip() and not pictures:
                return
            self._view_models.check_sight(pictures)
            self._keep_settings()
            self._begin(edit_question(self._conversation, found, text, kept))

    def _go_to_version(self, turn: str, step: int) -> None:
        with self._lock:
            found = self._turn(turn)
            if found is not None and not self._writing:
                choose_question(self._conversation, found, step)
                self._show_turns()

    def _go_to_reply(self, turn: str, model: str, step: int) -> None:
        with self._lock:
            found = self._turn(turn)
            if found is not None and not self._writing and found.replies.get(model):
                choose_reply(self._conversation, found, model, step)
                self._show_turns()

    def _fix(self, turn: str, model: str, fix: str) -> None:
        """Do what a button beside an error says."""
        if fix == "edit":
            self.send({"type": "edit", "turn": turn})
        elif fix == "again":
            self._again(turn, model)
        elif fix == "shorten":
            found = self._turn(turn)
            if found is not None and model in found.questions:
                self._again(turn, model, left_out=shortened(self._conversation, found, model))

    def _keep(self, given: dict[str, Any]) -> None:
        """Keep a reply as training data."""
        with self._lock:
            turn, model = self._turn(str(given["turn"])), str(given["model"])
            if turn is not None:
                other, text = str(given.get("other", "")), str(given.get("text", ""))
                keep(self._conversation, turn, model, str(given["what"]), other=other, text=text)
                self._show_turns()
                self._show_kept()

    def _undo(self, given: dict[str, Any]) -> None:
        """Remove a reply from a data set."""
        with self._lock:
            turn, kind = self._turn(str(given["turn"])), given["kind"]
            if turn is not None and kind in KINDS:
                undo(self._conversation, turn, str(given["model"]), kind)
                self._show_turns()
                self._show_kept()

    def _change_settings(self, changes: dict[str, Any]) -> None:
        with self._lock:
            self._settings, problems = changed(self._settings, changes)
            kept = {name: text for name, text in self._errors.items() if name not in changes}
            self._errors = {**kept, **problems}
