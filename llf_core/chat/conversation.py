"""A conversation as a file: a tree of messages in `$LLF_HOME/chats/<id>.jsonl`, to which lines are only appended.

Regenerating a reply or editing a question adds a sibling, so nothing is lost. Several views may have one conversation
open: each appends its messages, and sees those of the others with `refresh`.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from llf_core.redaction.file_modes import folder_mode
from llf_core.runs.folder import home_folder
from llf_core.runs.jsonl import MAX_LINE_BYTES, Tail, append, as_number, encode, parse
from llf_core.untrusted import HISTORY_BYTES, leads_to_file
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

CHATS = "chats"
CONVERSATION_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{8}")
TITLE_LENGTH = 60
"""Maximum characters of a title that is made of the first question."""
Role = Literal["user", "assistant", "tool"]
Rating = Literal["good", "bad", ""]
CHANGEABLE = frozenset({"content", "reasoning", "tool_calls", "usage", "finish_reason", "rating", "kept"})
"""Fields of a message that may change after it was added: a reply grows, and is rated or kept."""


class ConversationError(UserError, ValueError):
    """A conversation or a message in it does not exist, or cannot be written."""


@dataclass(frozen=True)
class ChatMessage:
    """A message of a conversation.

    Attributes:
        id: random id.
        parent: id of the message before it; None for a first message.
        role: `user`, `assistant` or `tool`. The system prompt is one of the conversation's settings.
        content: text, or OpenAI's content parts (`{"type": "text", …}`, `{"type": "image_url", …}`).
        reasoning: what the model thought before its answer.
        tool_calls: calls of functions in OpenAI's form, with `id` and with arguments as JSON text.
        tool_call_id: of a tool's result, the id of its call.
        target: name of the model that wrote the message, or for which alone the question is; empty for all.
        turn: the same text for all messages that are one question to several models; else empty.
        sampling: sampling parameters of a reply, see `llf_core.chat.request.ChatSampling`.
        usage: numbers of tokens and times of a reply, see `llf_core.chat.events.Finished`.
        finish_reason: why a reply ended; empty while it is being written, `failed` after an error.
        edited_from: id of the message of which it is an edited copy; else empty.
        rating: `good`, `bad`, or empty.
        kept: the rows in data sets that were made of it, by name of the data set; see
            `llf_core.chat.kept_examples`.
        created: Unix seconds.
    """

    id: str
    parent: str | None
    role: Role
    content: str | list[dict[str, Any]] = ""
    reasoning: str = ""
    tool_calls: tuple[dict[str, Any], ...] = ()
    tool_call_id: str = ""
    target: str = ""
    turn: str = ""
    sampling: dict[str, Any] = field(default_factory=dict)
    usage: dict[str, Any] = field(default_factory=dict)
    finish_reason: str = ""
    edited_from: str = ""
    rating: Rating = ""
    kept: dict[str, str] = field(default_factory=dict)
    created: float = 0.0

    def text(self) -> str:
        """The text of the content, without pictures, for titles, views and exports that show text alone."""
        if isinstance(self.content, str):
            return self.content
        return "".join(str(part.get("text", "")) for part in self.content if part.get("type") == "text")

    def openai(self) -> dict[str, Any]:
        """The message in OpenAI's form, as a request and training rows have it."""
        message: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.reasoning:
            message["reasoning_content"] = self.reasoning
        if self.tool_calls:
            message["tool_calls"] = [dict(call) for call in self.tool_calls]
        if self.tool_call_id:
            message["tool_call_id"] = self.tool_call_id
        return message


_KINDS: dict[str, type | tuple[type, ...]] = {
    "id": str, "parent": (str, type(None)), "role": str, "content": (str, list), "reasoning": str, "tool_calls": list,
    "tool_call_id": str, "target": str, "turn": str, "sampling": dict, "usage": dict, "finish_reason": str,
    "edited_from": str, "rating": str, "kept": dict, "created": (int, float),
}  # fmt: skip


class Conversation:
    """A conversation in a file.

    The file may have been written by others: lines that are no messages, and messages whose parent is missing, are
    skipped.

    Args:
        path: the file. Use `new_conversation` and `open_conversation`, which know where conversations are.

    Attributes:
        file: the file; it exists from the first message on.
        messages: all messages by id, in the order in which they were added.
        settings: what the views keep with the conversation: `system` (the system prompt), `targets`, `sampling`,
            `tools`, and others.
        created: Unix seconds; 0 before the first message.
    """

    def __init__(self, path: Path) -> None:
        """Open the conversation, see the class.

        Args:
            path: the file; it may not exist yet.

        Raises:
            UnreadableError: it is not a regular file, or the system denies access.
            OSError: too many files are open.
        """
        self.file = path
        self._tail = Tail(path, most=HISTORY_BYTES)
        self._clear()
        self.refresh()

    def _clear(self) -> None:
        self.messages: dict[str, ChatMessage] = {}
        self.settings: dict[str, Any] = {}
        self.created = 0.0
        self._title = ""
        self._children: dict[str | None, list[str]] = {}
        self._events = 0
        self._ends: dict[str, _Choice] = {}
        self._chosen: dict[str | None, dict[str, _Choice]] = {}

    @property
    def id(self) -> str:
        """The conversation's id, by which it is opened again: the name of its file without the ending."""
        return self.file.stem

    @property
    def title(self) -> str:
        """The title for lists: as given, else the beginning of the first question; empty without one."""
        if self._title:
            return self._title
        first = next((one.text() for one in self.messages.values() if one.role == "user" and one.text().strip()), "")
        line = " ".join(first.split())
        return line if len(line) <= TITLE_LENGTH else f"{line[: TITLE_LENGTH - 2].rstrip()} …"

    def refresh(self) -> list[str]:
        """Read what was appended since the last call, by this or by other processes, so that all views agree.

        Returns:
            Ids of the new and changed messages, without duplicates.

        Raises:
            UnreadableError: it is not a regular file, or the system denies access.
            OSError: too many files are open.
        """
        changed: dict[str, None] = {}
        for data, again in self._tail.pieces():
            if again:
                self._clear()
            for line in data.splitlines():
                record = parse(line)
                if record is not None and (touched := self._read(record)) is not None:
                    changed[touched] = None
        return [name for name in changed if name in self.messages]

    def _read(self, record: dict[str, Any]) -> str | None:
        """Apply a record of the file; the id of the message that is new or changed."""
        kind = record.get("type")
        if kind == "message":
            return self._read_message(record)
        if kind == "change":
            return self._read_change(record)
        if kind == "choose":
            self._read_choice(record)
        elif kind == "title" and isinstance(record.get("title"), str):
            self._title = record["title"]
        elif kind == "settings" and isinstance(record.get("settings"), dict):
            self.settings = self.settings | record["settings"]
        elif kind == "conversation" and (created := as_number(record.get("created"))) is not None:
            self.created = created
        return None

    def _read_message(self, record: dict[str, Any]) -> str | None:
        values = {name: record[name] for name in _KINDS if name in record}
        name, parent = values.get("id"), values.get("parent")
        # A parent always stands before its children, so a tree of hostile lines has no circle.
        if not _valid(values) or not name or name in self.messages or (parent is not None and not self._has(parent)):
            return None
        self.messages[name] = _message(values)
        self._children.setdefault(parent, []).append(name)
        self._choose(self.messages[name], self.messages[name].target)
        return str(name)

    def _read_change(self, record: dict[str, Any]) -> str | None:
        name, values = record.get("id"), {key: record[key] for key in CHANGEABLE if key in record}
        if not isinstance(name, str) or name not in self.messages or not _valid(values):
            return None
        self.messages[name] = _message(_as_record(self.messages[name]) | values)
        return name

    def _read_choice(self, record: dict[str, Any]) -> None:
        name, target = record.get("message"), record.get("target", "")
        if not isinstance(target, str):
            return
        if isinstance(name, str) and name in self.messages:
            self._choose(self.messages[name], target, last=record.get("last") is True)
        elif name is None and "message" in record:
            self._events += 1
            self._ends[target] = _Choice(self._events, None, last=True)

    def _choose(self, message: ChatMessage, target: str, *, last: bool = False) -> None:
        self._events += 1
        self._ends[target] = choice = _Choice(self._events, message.id, last)
        self._chosen.setdefault(message.parent, {})[target] = choice

    def _has(self, name: object) -> bool:
        return isinstance(name, str) and name in self.messages

    def add(
        self, role: Role, content: str | list[dict[str, Any]] = "", *, parent: str | None = None, **values: Any
    ) -> ChatMessage:
        """Append a message; nothing is overwritten, so that other views of the conversation stay valid.

        The path of its target (of all models, without one) ends with it until another is chosen.

        Args:
            role: see `ChatMessage`.
            content: see `ChatMessage`.
            parent: id of the message before it; None for a first message.
            values: further fields of `ChatMessage` except `id` and `created`. A regenerated reply has the parent of the
                first one; so has an edited question, with `edited_from`.

        Returns:
            The message as it is in the file, where secrets are redacted.

        Raises:
            ConversationError: the parent does not exist, a field has another type, the message is too large, or the
                file was replaced or deleted meanwhile.
            UnreadableError: the file is not a regular file, or the system denies access.
            ModeError: `LLF_HOME_MODE` is not a mode.
            OSError: the disk is full, or the file cannot be written.
            TypeError: a field is unknown, or a value is not JSON.
        """
        self.refresh()
        if parent is not None and parent not in self.messages:
            raise ConversationError(f"The conversation {self.id} has no message {parent!r}.")
        message = ChatMessage(secrets.token_hex(8), parent, role, content, created=time.time(), **values)
        record = _as_record(message)
        self._check(record)
        self._append({"type": "message"} | record)
        return self._own(message.id)

    def ask(self, content: str | list[dict[str, Any]], targets: Iterable[str]) -> dict[str, ChatMessage]:
        """Append a question to one or several models: one message, or one for each model once their histories differ.

        Models that were asked the same so far can share a message, and their replies are siblings.

        Args:
            content: see `ChatMessage`.
            targets: names of the models, at least one.

        Returns:
            The question to each model; the replies have it as their parent.

        Raises:
            ConversationError: the content is neither text nor a list of parts, the message is too large, or the file
                was replaced or deleted meanwhile.
            UnreadableError: the file is not a regular file, or the system denies access.
            ModeError: `LLF_HOME_MODE` is not a mode.
            OSError: the disk is full, or the file cannot be written.
            TypeError: a value is not JSON.
        """
        names = list(dict.fromkeys(targets))
        self.refresh()
        ends = {name: self.end(name) for name in names}
        if len(set(ends.values())) <= 1:
            message = self.add("user", content, parent=next(iter(ends.values()), None))
            return dict.fromkeys(names, message)
        turn = secrets.token_hex(8)
        return {name: self.add("user", content, parent=ends[name], target=name, turn=turn) for name in names}

    def change(self, message: str, **values: Any) -> ChatMessage:
        """Change fields of a message, as a reply grows or is rated: those of `CHANGEABLE`.

        An edited question is a new message, see `add`.

        Args:
            message: id of the message.
            values: new values.

        Returns:
            The message as it is in the file, where secrets are redacted.

        Raises:
            ConversationError: the message does not exist, a field cannot change or has another type, the message
                becomes too large, or the file was replaced or deleted meanwhile.
            UnreadableError: the file is not a regular file, or the system denies access.
            ModeError: `LLF_HOME_MODE` is not a mode.
            OSError: the disk is full, or the file cannot be written.
            TypeError: a value is not JSON.
        """
        self.refresh()
        if message not in self.messages:
            raise ConversationError(f"The conversation {self.id} has no message {message!r}.")
        if unknown := sorted(values.keys() - CHANGEABLE):
            raise ConversationError(
                f"{unknown[0]} of a message cannot change. Expected {', '.join(sorted(CHANGEABLE))}."
            )
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
        self._check(values)
        self._append({"type": "change", "id": message} | values)
        return self._own(message)

    def choose(self, message: str | None, target: str = "", *, last: bool = False) -> None:
        """Choose the path through a message, as a view does that shows another branch.

        A model that joins a conversation takes over the history of another one in this way.

        Args:
            message: id of the message; None for the beginning, before the first message.
            target: name of the model whose path it is; empty for the path of all models.
            last: whether the path ends with the message, so that the next question follows it.

        Raises:
            ConversationError: the message does not exist.
            UnreadableError: the file is not a regular file, or the system denies access.
            ModeError: `LLF_HOME_MODE` is not a mode.
            OSError: the disk is full, or the file cannot be written.
        """
        self.refresh()
        if message is not None and message not in self.messages:
            raise ConversationError(f"The conversation {self.id} has no message {message!r}.")
        self._append({"type": "choose", "message": message, "target": target, "last": last})

    def rename(self, title: str) -> None:
        """Set the title, which lists show in place of the first question.

        Args:
            title: the title, of which runs of whitespace become one space; empty for the beginning of the first
                question.

        Raises:
            UnreadableError: the file is not a regular file, or the system denies access.
            ModeError: `LLF_HOME_MODE` is not a mode.
            OSError: the disk is full, or the file cannot be written.
        """
        self._append({"type": "title", "title": " ".join(title.split())})

    def set(self, **settings: Any) -> None:
        """Set settings; the others keep their values. They come back when the conversation is opened again.

        Args:
            settings: see the attribute.

        Raises:
            UnreadableError: the file is not a regular file, or the system denies access.
            ModeError: `LLF_HOME_MODE` is not a mode.
            OSError: the disk is full, or the file cannot be written.
            TypeError: a value is not JSON.
        """
        self._append({"type": "settings", "settings": settings})

    def siblings(self, message: str) -> tuple[str, ...]:
        """Ids of the messages that a view offers in place of a message, such as regenerated replies, oldest first.

        They have the same parent, role and target; the message itself is among them.

        Args:
            message: id of the message.

        Raises:
            ConversationError: the message does not exist.
        """
        if message not in self.messages:
            raise ConversationError(f"The conversation {self.id} has no message {message!r}.")
        one = self.messages[message]
        others = (self.messages[name] for name in self._children[one.parent])
        return tuple(other.id for other in others if (other.role, other.target) == (one.role, one.target))

    def path(self, target: str = "") -> tuple[ChatMessage, ...]:
        """The messages that a view shows and a request sends.

        They lead from the first one through the one that was added or chosen last to the end of its branch, or only to
        that one if `choose` was called with `last`. Empty if there is no message, or the beginning was chosen.

        Args:
            target: name of a model: what was added or chosen for it or for all models; empty for any model.
        """
        chosen = _latest(self._ends, target)
        if chosen is None or chosen.message is None:
            return ()
        found = list(self._up_to(chosen.message))
        while not chosen.last and (following := self._following(found[-1].id, target)) is not None:
            found.append(self.messages[following])
        return tuple(found)

    def path_to(self, message: str) -> tuple[ChatMessage, ...]:
        """The messages from the first one to a message, with it: what a model is sent to answer it.

        Args:
            message: id of the message.

        Raises:
            ConversationError: the message does not exist.
        """
        if message not in self.messages:
            raise ConversationError(f"The conversation {self.id} has no message {message!r}.")
        return self._up_to(message)

    def _up_to(self, message: str) -> tuple[ChatMessage, ...]:
        found: list[ChatMessage] = []
        at: str | None = message
        while at is not None:
            found.append(self.messages[at])
            at = self.messages[at].parent
        return tuple(reversed(found))

    def end(self, target: str = "") -> str | None:
        """Id of the last message of `path`, which is the parent of the next question; None if the path is empty.

        Args:
            target: see `path`.
        """
        path = self.path(target)
        return path[-1].id if path else None

    def request_messages(self, path: Iterable[ChatMessage]) -> tuple[dict[str, Any], ...]:
        """The messages of a path in OpenAI's form with the system prompt before them, for a request.

        Args:
            path: messages, see `path` and `path_to`.
        """
        system = self.settings.get("system")
        head = [{"role": "system", "content": system}] if isinstance(system, str) and system.strip() else []
        return (*head, *(one.openai() for one in path))

    def _following(self, parent: str, target: str) -> str | None:
        """The child of a message that was added or chosen last, of those for a target."""
        fitting = {
            lane: choice
            for lane, choice in self._chosen.get(parent, {}).items()
            if choice.message is not None and (not target or self.messages[choice.message].target in {"", target})
        }
        choice = _latest(fitting, target)
        return None if choice is None else choice.message

    def _own(self, name: str) -> ChatMessage:
        if name not in self.messages:
            raise ConversationError(
                f"The file of the conversation {self.id} was replaced or deleted while it was open.",
                "Begin a new conversation.",
            )
        return self.messages[name]

    def _check(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            if not _valid({name: value}):
                raise ConversationError(f"{name} of a message is {str(value)[:TITLE_LENGTH]!r}, which it cannot be.")
        if (length := len(encode(values))) > MAX_LINE_BYTES // 2:
            raise ConversationError(
                f"The message has {length:,} bytes. Expected at most {MAX_LINE_BYTES // 2:,}.",
                "Send smaller or fewer pictures.",
            )

    def _append(self, record: dict[str, Any]) -> None:
        if not leads_to_file(self.file):
            make_folder(self.file.parent)
            append(self.file, {"type": "conversation", "v": 1, "created": time.time()})
        append(self.file, record)
        self.refresh()


class _Choice(NamedTuple):
    """A message that was added or chosen.

    Attributes:
        number: number of the event.
        message: the message's id; None for the beginning of the conversation.
        last: whether the path ends with it.
    """

    number: int
    message: str | None
    last: bool = False


def _latest(choices: Mapping[str, _Choice], target: str) -> _Choice | None:
    """The message that was chosen last for a target or for all; for any target if it is empty."""
    found = [choice for lane, choice in choices.items() if not target or lane in {"", target}]
    return max(found, default=None)


def _message(values: dict[str, Any]) -> ChatMessage:
    return ChatMessage(**{**values, "tool_calls": tuple(values.get("tool_calls", ()))})


def _as_record(message: ChatMessage) -> dict[str, Any]:
    """The fields of a message that have a value, as JSON."""
    record = asdict(message)
    record["tool_calls"] = list(record["tool_calls"])
    return {key: value for key, value in record.items() if value or key in {"parent", "content"}}


def _valid(values: dict[str, Any]) -> bool:
    """Whether fields of a message have the right types: lines may be written by others."""
    if any(not isinstance(value, _KINDS[name]) or isinstance(value, bool) for name, value in values.items()):
        return False
    lists = [values.get("tool_calls", [])] + ([values["content"]] if isinstance(values.get("content"), list) else [])
    return (
        values.get("role", "user") in get_args(Role)
        and values.get("rating", "") in get_args(Rating)
        and all(isinstance(one, dict) for each in lists for one in each)
        and all(isinstance(one.get("function"), dict) for one in values.get("tool_calls", []))
        and all(isinstance(one, str) for one in values.get("kept", {}).values())
    )


def make_folder(folder: Path) -> None:
    """Make a folder for conversations with the permissions of run folders, since they are as private.

    An existing one is left as it is.

    Args:
        folder: the folder.

    Raises:
        ModeError: `LLF_HOME_MODE` is not a mode.
        OSError: the folder cannot be made.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    mode = folder_mode()
    try:
        folder.mkdir()
    except FileExistsError:
        return
    if mode is not None:
        os.chmod(folder, mode)  # noqa: PTH101 - it was just made


def new_conversation(home: Path | str | None = None) -> Conversation:
    """Begin a conversation. Its file is made with its first message, so that a chat without one leaves nothing behind.

    Args:
        home: `LLF_HOME`. Default: from the environment.

    Raises:
        HomeError: the home folder is unknown.
        UnreadableError: the system denies access.
        OSError: too many files are open.
    """
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
    return Conversation(home_folder(home) / CHATS / f"{name}.jsonl")


def conversation_path(conversation_id: str, home: Path | str | None = None) -> Path:
    """Path of a conversation's file. Only ids are accepted, so that none leads out of the folder of conversations.

    Args:
        conversation_id: its id.
        home: `LLF_HOME`. Default: from the environment.

    Raises:
        ConversationError: it is not an id, for example because it is a path.
        HomeError: the home folder is unknown.
    """
    if not CONVERSATION_ID.fullmatch(conversation_id):
        raise ConversationError(
            f"{conversation_id!r} is not the id of a conversation. Expected a name such as 20261127-142530-0a1b2c3d."
        )
    return home_folder(home) / CHATS / f"{conversation_id}.jsonl"


def open_conversation(conversation_id: str, home: Path | str | None = None) -> Conversation:
    """Open a conversation that is in a file, to continue, show or export it.

    Args:
        conversation_id: its id.
        home: `LLF_HOME`. Default: from the environment.

    Raises:
        ConversationError: there is none with this id.
        HomeError: the home folder is unknown.
        UnreadableError: it is not a regular file, or the system denies access.
        OSError: too many files are open.
    """
    path = conversation_path(conversation_id, home)
    if not leads_to_file(path):
        raise ConversationError(
            f"There is no conversation {conversation_id}.", "List conversations with list_conversations()."
        )
    return Conversation(path)
