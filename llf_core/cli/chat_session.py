"""A chat in a terminal."""

from __future__ import annotations

import json
import queue
import shlex
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rich.markup import escape

from llf_core.chat.conversation_list import as_jsonl, as_markdown, as_openai, as_rows
from llf_core.chat.picture import PictureError, check_together, part_url, picture_bytes, picture_part, question_content
from llf_core.chat.request import ChatRequest, ChatSampling, CollectedReply, Piece, ToolCallPiece
from llf_core.cli.terminal import err, out, print_error
from llf_core.config.paths import expanded, is_there
from llf_core.redaction import redact
from llf_core.runs.formatting import size
from llf_core.untrusted import visible
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from llf_core.chat.conversation import ChatMessage, Conversation
    from llf_core.chat.request import Event
    from llf_core.chat.service import ChatService, Ticket


HELP = """/system TEXT   set the system prompt; without TEXT, remove it
/again         answer the last question again
/undo          go back before the last question
/image PATH    add a picture to the next question; without PATH, list those that wait
/drop NUMBER   remove picture NUMBER from the next question; without NUMBER, all
/clear         begin a new conversation
/save FILE     write the conversation: Markdown, .json (OpenAI's messages) or .jsonl (training rows)
/exit          leave, as Ctrl-D does
Ctrl-C stops a reply; at the prompt, it leaves."""

POLL_SECONDS = 0.2
"""Interval at which waiting for an event is interrupted for Ctrl-C."""

CANCEL_SECONDS = 10.0
"""Time that a stopped reply has to end."""


class ChatSession:
    """A conversation with one or several models, whose replies are printed as they come.

    Args:
        max_tokens: of a reply; None for what the context leaves.
        pictures: of the first question.
        conversation: the conversation to continue; None for a new one.
    """

    def __init__(  # noqa: PLR0913 - the parts of a chat
        self,
        service: ChatService,
        names: list[str],
        new: Callable[[], Conversation],
        *,
        sampling: ChatSampling,
        max_tokens: int | None,
        pictures: WaitingPictures | None = None,
        conversation: Conversation | None = None,
    ) -> None:
        self.conversation = conversation or new()
        self._service, self._names, self._new = service, names, new
        self._sampling, self._max_tokens = sampling, max_tokens
        self._pictures = pictures or WaitingPictures()

    def run(self, read: Callable[[str], str]) -> None:
        """Read lines (with `read`, such as `input`) and answer them, until the end of the input, `/exit` or Ctrl-C."""
        while True:
            try:
                line = read("> ").strip()
            except (EOFError, KeyboardInterrupt):
                out.print()
                return
            if line in {"/exit", "/quit"}:
                return
            try:
                if line.startswith("/"):
                    self.command(line)
                elif line:
                    self.ask(line)
            except KeyboardInterrupt:  # while a model is loading
                err.print("\nStopped.")
            except UserError as error:
                print_error(error)

    def command(self, line: str) -> None:
        """Carry out a command of `HELP`.

        Raises:
            UserError: the command or its argument cannot be used, or the conversation was replaced or deleted
                meanwhile.
        """
        name, _, argument = line.partition(" ")
        argument = argument.strip()
        if name == "/system":
            self.conversation.set(system=argument)
            err.print("System prompt set." if argument else "System prompt removed.")
        elif name == "/again":
            self.again()
        elif name == "/undo":
            self.undo()
        elif name in {"/image", "/drop"}:
            self._change_pictures(name, argument)
        elif name == "/clear":
            system = self.conversation.settings.get("system", "")
            self.conversation = self._new()
            if system:
                self.conversation.set(system=system)
            err.print("New conversation.")
        elif name == "/save":
            self.save(argument)
        elif name == "/help":
            err.print(HELP, markup=False)
        else:
            raise UserError(f"There is no command {name[:80]}.", "/help lists the commands.")

    def ask(self, text: str) -> None:
        """Ask all models in turn. Pictures that wait go with the question, and wait on if none has answered."""
        pictures = self._pictures.parts
        if pictures:
            self._wait_until_loaded()
            check_sight(self._service, self._names)
        if self._answer(self.conversation.ask(question_content(text, pictures), self._names)):
            self._pictures.clear()
        elif pictures:
            err.print("The pictures wait for the next question.")

    def again(self) -> None:
        """Answer the last question again, in new branches."""
        self._answer({name: self._last_question(name) for name in self._names})

    def undo(self) -> None:
        """Go back to the end of the reply before the last question; nothing is deleted."""
        before = {name: self._last_question(name).parent for name in self._names}
        for name, parent in before.items():
            self.conversation.choose(parent, name, last=True)
        err.print("The last question is taken back.")

    def save(self, name: str) -> None:
        """Write the conversation to a new file in the form that its ending says.

        Raises:
            UserError: there is no name, the file exists already, or it cannot be written.
        """
        if not name:
            raise UserError("/save needs the name of a file.", "For example: /save chat.md")
        path = expanded(name)
        kind, target = path.suffix.lower(), self._names[0] if len(self._names) > 1 else ""
        if kind == ".jsonl":
            text = as_jsonl(row for one in self._names for row in as_rows(self.conversation, one))
        elif kind == ".json":
            text = json.dumps(as_openai(self.conversation, target), ensure_ascii=False, indent=2) + "\n"
        else:
            text = "\n".join(as_markdown(self.conversation, one) for one in self._names)
        try:
            with path.open("x", encoding="utf-8") as file:
                _write_all(file, redact(text))  # a conversation has no lone surrogates
        except FileExistsError:
            raise UserError(f"{path} already exists.", "Name another file.") from None
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror}.") from None
        err.print(f"Saved to {escape(str(path))}.")

    def _last_question(self, name: str) -> ChatMessage:
        asked = [one for one in self.conversation.path(name) if one.role == "user"]
        if not asked:
            raise UserError("There is no question yet.", "Type one.")
        return asked[-1]

    def _change_pictures(self, command: str, argument: str) -> None:
        if command == "/drop":
            self._pictures.drop(argument)
        elif argument:
            check_sight(self._service, self._names)
            self._pictures.add(argument)
        err.print(self._pictures.text(), markup=False)

    def _wait_until_loaded(self) -> None:
        """Wait until the models are loaded, since only then it is known which of them read pictures."""
        for name in self._names:
            self._service.start(name)
            with err.status("Loading …", spinner_style="dim") as status:
                while (state := self._service.state(name)).phase == "starting":
                    status.update(escape(visible(state.progress)))
                    time.sleep(POLL_SECONDS)

    def _answer(self, questions: dict[str, ChatMessage]) -> bool:
        """Whether a model has answered."""
        answered = False
        for name, question in questions.items():
            if len(self._names) > 1:
                out.print(f"[bold]{escape(name)}[/bold]")
            reply, stopped = self._print_reply(name, question.id)
            fields = reply.message_fields()
            if not (reply.content.strip() or reply.reasoning or reply.tool_calls):
                # A question without an answer would stand before the next question, which templates refuse.
                self.conversation.choose(question.parent, name, last=True)
            else:
                answered = True
                self.conversation.add(
                    "assistant", parent=question.id, target=name, sampling=_set(self._sampling), **fields
                )
            if reply.failed is not None:
                print_error(UserError(reply.failed.message, reply.failed.what_to_do))
            if stopped:
                break
        return answered

    def _print_reply(self, name: str, question: str) -> tuple[CollectedReply, bool]:
        messages = self.conversation.request_messages(self.conversation.path_to(question))
        request = ChatRequest(messages, sampling=self._sampling, max_tokens=self._max_tokens)
        events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        ticket = self._service.submit(name, request, events.put)
        printer = ReplyPrinter()
        try:
            collect(events, printer.take, lambda: self._service.state(name).progress)
        except KeyboardInterrupt:
            _stop(ticket, events, printer)
            err.print("\nStopped.")
            return printer.reply, True
        printer.end()
        return printer.reply, False


class ReplyPrinter:
    """Prints a reply while it is written: thoughts dimmed, calls as JSON."""

    def __init__(self) -> None:
        self.reply = CollectedReply()
        self._last = ""

    def take(self, event: Event) -> bool:
        """Print an event at once, also within a line."""
        if isinstance(event, Piece) and event.text:
            if event.kind == "content" and self._last == "reasoning":
                out.print("\n")
            out.print(escape(event.text), style="dim" if event.kind == "reasoning" else None, end="")
            self._last = event.kind
        elif isinstance(event, ToolCallPiece):
            if event.name:
                out.print(f"\n[bold]{escape(event.name)}[/bold] ", end="")
            out.print(escape(event.arguments), end="")
        sys.stdout.flush()
        return self.reply.take(event)

    def end(self) -> None:
        """End the line."""
        out.print()


def collect(
    events: queue.SimpleQueue[Event], take: Callable[[Event], bool], progress: Callable[[], str] | None = None
) -> None:
    """Take events until the last one, with a line that says what is loading before the first one."""
    with err.status("Loading …", spinner_style="dim") as status:
        while True:
            try:
                event = events.get(timeout=POLL_SECONDS)
            except queue.Empty:
                if progress is not None and (said := progress()):
                    status.update(escape(visible(said)))
                continue
            status.stop()
            if take(event):
                return


def _stop(ticket: Ticket, events: queue.SimpleQueue[Event], printer: ReplyPrinter) -> None:
    """Stop a reply, and take what it had written; a second Ctrl-C does not wait for it."""
    ticket.cancel()
    try:
        while not printer.reply.take(events.get(timeout=CANCEL_SECONDS)):
            pass
    except queue.Empty:
        return


def _write_all(file: TextIO, text: str) -> None:
    """Write a text to a new file, or remove the file: half of it would keep the next try from its name."""
    try:
        file.write(text)
        file.flush()
    except OSError:
        Path(file.name).unlink()
        raise


def _set(sampling: ChatSampling) -> dict[str, object]:
    """The sampling parameters that differ from the defaults."""
    plain = asdict(ChatSampling())
    return {key: value for key, value in asdict(sampling).items() if value != plain[key]}


class WaitingPictures:
    """The pictures of the next question of a chat in a terminal; `parts` are in OpenAI's form."""

    def __init__(self) -> None:
        self.parts: list[dict[str, Any]] = []
        self._names: list[str] = []
        self._lengths: list[int] = []

    def add(self, given: str) -> None:
        """Add a picture, by its path as it was typed: with or without quotes, as terminals paste it.

        Raises:
            UserError: there is no such file, it cannot be read, is no picture, or is too large.
        """
        path = _typed(given)
        try:
            part = picture_part(path)
        except FileNotFoundError:
            raise UserError(f"There is no file {path}.", "Expected the path of a picture.") from None
        except UserError:
            raise
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}.") from None
        length = len(picture_bytes(part_url(part)))
        check_together(length, sum(self._lengths), path)
        self.parts.append(part)
        self._names.append(path)
        self._lengths.append(length)

    def drop(self, number: str = "") -> None:
        """Remove a picture by its number in `text`, from 1; empty for all.

        Raises:
            UserError: there is no picture with this number, or none at all.
        """
        if not self.parts:
            raise UserError("No picture waits for the next question.", "Add one with /image PATH.")
        if not number:
            self.clear()
            return
        if number not in map(str, range(1, len(self.parts) + 1)):
            raise UserError(f"There is no picture {number[:80]}.", f"Expected a number from 1 to {len(self.parts)}.")
        for each in (self.parts, self._names, self._lengths):
            del each[int(number) - 1]

    def clear(self) -> None:
        """Forget all pictures."""
        for each in (self.parts, self._names, self._lengths):
            each.clear()

    def text(self) -> str:
        """A line for each picture: its number, file and size."""
        if not self.parts:
            return "No picture waits for the next question."
        rows = zip(self._names, self._lengths, strict=True)
        return "\n".join(
            f"Picture {number} of the next question: {name} ({' '.join(size(length))})"
            for number, (name, length) in enumerate(rows, 1)
        )


def check_sight(service: ChatService, names: Iterable[str]) -> None:
    """Refuse pictures for a loaded model that reads none.

    Raises:
        PictureError: a loaded model reads no pictures.
    """
    blind = [name for name in names if service.state(name).is_blind]
    if blind:
        raise PictureError(f"{blind[0]} reads no pictures.", "Remove them with /drop, or ask a vision model.")


def _typed(given: str) -> str:
    """The path that was typed; without quotes and backslashes unless there is such a file."""
    if is_there(expanded(given)):
        return given
    try:
        (path,) = shlex.split(given)
    except ValueError:  # an open quote, or several words
        return given
    return path
