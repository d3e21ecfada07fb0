"""`llf.Chat(*targets)`: one question to models side by side."""

from __future__ import annotations

import threading
import time
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import traitlets

from llf_core.chat.kept_examples import KINDS
from llf_core.chat.picture import MAX_BYTES, PictureError
from llf_core.config.number_format import with_unit
from llf_core.runs import Checkpoints, open_run
from llf_core.runs.formatting import strip_bidi
from llf_core.untrusted import visible
from llf_core.user_error import UserError
from llf_widgets.chat.models import MAX_MODELS, ViewModels, request_checkpoint, shared_models, wait_for_checkpoint
from llf_widgets.chat.session import WAIT_SECONDS, ChatSession
from llf_widgets.chat.settings import CellTools, changed, conversation_of, saved_settings
from llf_widgets.chat.turns import (
    AddedPictures,
    choose_question,
    choose_reply,
    edit_question,
    keep,
    pictures_of,
    shortened,
    shown_url,
    undo,
)
from llf_widgets.home import allow_code
from llf_widgets.view_files import VIEW_MIME_TYPE, script, stylesheet, text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from llf_core.launch import Run
    from llf_core.runs import RunFolder

CHECKPOINT_SECONDS = 600.0
"""Maximum time to wait for a checkpoint that was requested."""


class Chat(ChatSession):
    """A chat with one to four models: each question goes to all of them, and their replies stand side by side.

    The models run in processes of their own, which all chats of the kernel share: one for each base model, with the
    adapters of its runs. A process starts with the first question and ends after 10 minutes without one. The
    conversation is kept in a file below `LLF_HOME`, so that it comes back when the cell is run again, also after a
    restart of the kernel.

    Args:
        targets: one to four: a run, its id, `RUN@STEP`, `RUN@latest`, `RUN@base`, a folder of a model or adapter, a
            GGUF file, a config file that names a model, or a hub id.
        conversation: id of the conversation; None for the last one of these models in this notebook, or a new one.
        system: system prompt; None for that of the conversation.
        tools: a list of functions that the models may call; the result goes back to the model. Their annotations and
            docstrings say what they do. After each 10 rounds of calls for a question, the chat asks whether to go on.
        trust: whether Python code of the models may run that has not been allowed yet.
        home: `LLF_HOME`; None for the environment's.

    Raises:
        ValueError: there is no target, there are too many, or a tool has a parameter that cannot be passed by name.
        TypeError: a target is of another type, a tool cannot be called or has no name, or the tools are not a list.
        TargetError: a target was not found, has no such checkpoint or no weights yet, or generates no text.
        ConfigError: the config of a run is no longer valid, or a config file is not.
        ConversationError: there is no such conversation.

    Example:
        >>> llf.Chat("HuggingFaceTB/SmolLM2-135M-Instruct", run)   # the base beside what was trained
    """

    _esm = text(script("chat"))
    _css = text(stylesheet("chat"))
    _picture_bytes = traitlets.Int(MAX_BYTES, help="maximum size of a picture").tag(sync=True)
    _page_updates_outputs = False  # until a page says that it keeps the view

    def __init__(
        self,
        *targets: str | Path | Run | RunFolder,
        conversation: str | None = None,
        system: str | None = None,
        tools: Sequence[Callable[..., Any]] = (),
        trust: bool = False,
        home: Path | str | None = None,
    ) -> None:
        if not 1 <= len(targets) <= MAX_MODELS:
            raise ValueError(f"There are {len(targets)} models. Expected 1 to {MAX_MODELS}.")
        place = None if home is None else Path(home)
        models, functions = ViewModels(shared_models(place, trust=trust), place), CellTools(tools)
        self._added = AddedPictures()
        try:
            for target in targets:
                models.acquire(target)
            opened = conversation_of(conversation, list(models.targets), place)
        except BaseException:
            models.release()
            raise
        given = {} if system is None else {"system": system}
        super().__init__(models, opened, saved_settings(opened) | given, functions)
        self.on_msg(self._receive)

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        data, metadata = self.widget_mimebundle(**options)
        call = f"llf.Chat({', '.join(map(repr, self._view_models.given.values()))})"
        texts = {"text/plain": summary_text(call, self._turns), "text/html": summary_html(call, self._turns)}
        return data | texts | {VIEW_MIME_TYPE: {"view": "chat"}}, metadata

    def _update_outputs(self) -> None:
        """Rewrite the outputs, if their page keeps the view while it does so."""
        if self._page_updates_outputs:
            super()._update_outputs()

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

    def _page_opened(self, given: dict[str, object]) -> None:
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
        key, problem = str(given["key"]), ""
        try:
            self._added.add(key, str(given["name"])[:200], given["picture"], [str(one) for one in given["beside"]])
        except PictureError as error:
            problem = str(error)
        self.send({"type": "picture_checked", "key": key, "problem": problem})

    def _show_picture(self, given: dict[str, object]) -> None:
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
        if fix == "edit":
            self.send({"type": "edit", "turn": turn})
        elif fix == "again":
            self._again(turn, model)
        elif fix == "continue":
            with self._lock:
                found = self._turn(turn)
                if found is not None and (reply := found.reply(model)) is not None:
                    self._continue(reply)
        elif fix == "shorten":
            with self._lock:
                found = self._turn(turn)
                if found is not None and model in found.questions:
                    self._again(turn, model, left_out=shortened(self._conversation, found, model))

    def _keep(self, given: dict[str, object]) -> None:
        with self._lock:
            turn, model = self._turn(str(given["turn"])), str(given["model"])
            if turn is not None:
                other, text = str(given.get("other", "")), str(given.get("text", ""))
                keep(self._conversation, turn, model, str(given["what"]), other=other, text=text)
                self._show_turns()
                self._show_kept()

    def _undo(self, given: dict[str, object]) -> None:
        with self._lock:
            turn, kind = self._turn(str(given["turn"])), given["kind"]
            if turn is not None and kind in KINDS:
                undo(self._conversation, turn, str(given["model"]), kind)
                self._show_turns()
                self._show_kept()

    def _change_settings(self, changes: dict[str, object]) -> None:
        with self._lock:
            self._settings, problems = changed(self._settings, changes)
            kept = {name: text for name, text in self._errors.items() if name not in changes}
            self._errors = {**kept, **problems}

    def _use_next_checkpoint(self, name: str) -> None:
        target = self._view_models.run_target(name)
        steps = Checkpoints(open_run(target.run_id, self._view_models.home)).list()
        folder = request_checkpoint(target, self._view_models.home)
        self._note = f"Checkpoint of {name} requested. The chat uses it as soon as it is saved."

        def follow() -> None:
            try:
                last = steps[-1] if steps else -1
                is_saved = wait_for_checkpoint(folder, last, CHECKPOINT_SECONDS, lambda: self._closed)
                while is_saved and self._writer.is_busy(name) and not self._closed:
                    time.sleep(WAIT_SECONDS)
                if self._closed:
                    return
                if is_saved:
                    self.use_newest(name)
                else:
                    self._note = f"{name} has saved no further checkpoint."
            except (ValueError, OSError, RuntimeError) as error:
                self._note = str(error)

        threading.Thread(target=follow, daemon=True, name="llf-chat-checkpoint").start()

    def _allow(self) -> None:
        if error := allow_code(self._code):
            self._note = error
            return
        self._view_models.start()

    def _free_memory(self) -> None:
        self.stop()
        self._view_models.stop()


STYLE = "white-space:pre-wrap;margin:0 0 8px"


def summary_html(call: str, turns: Iterable[Mapping[str, object]]) -> str:
    """A conversation as HTML without scripts, for notebooks that are read without a kernel; all text is escaped."""
    lines = [f'<p style="{STYLE}"><b>{escape(who)}</b><br>{escape(text)}</p>' for who, text in _lines(turns)]
    return strip_bidi(
        f'<div class="llf-Static">{"".join(lines)}<p>Run <code>{escape(call)}</code> to continue the chat.</p></div>'
    )


def summary_text(call: str, turns: Iterable[Mapping[str, object]]) -> str:
    """A conversation as plain text, for hosts that show no HTML."""
    return visible("\n\n".join([call, *(f"{who}:\n{text}" for who, text in _lines(turns))]))


def _lines(turns: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for turn in turns:
        count = len(turn["pictures"])
        yield "You", "\n".join(filter(None, (turn["text"], f"({with_unit(count, 'picture')})" if count else "")))
        for reply in turn["replies"]:
            said = reply["error"] or reply["question"]
            text = reply["text"] or (said["message"] if said else "")
            yield reply["model"], "\n".join(filter(None, (text, reply["note"])))
